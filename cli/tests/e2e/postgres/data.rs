//! Databases with something of everything, and what is compared of them.

use super::server::Server;

/// Names of databases that are hard on whoever writes them somewhere.
pub(crate) const NAMES: [&str; 3] = ["shop", "o/d'd \"100%\" host=x", "Bücher"];

/// Makes roles and the three databases.
pub(crate) fn fill(server: &Server) {
    server.sql(
        "postgres",
        r#"
        CREATE ROLE app LOGIN PASSWORD 'app''s secret';
        CREATE ROLE "Read er" NOLOGIN;
        COMMENT ON ROLE app IS 'first
CREATE ROLE postgres;
last';
        GRANT "Read er" TO app;
        ALTER ROLE app SET search_path TO public, pg_catalog;
        "#,
    );
    for (number, name) in NAMES.iter().enumerate() {
        let quoted = name.replace('"', "\"\"");
        server.sql(
            "postgres",
            &format!(
                "CREATE DATABASE \"{quoted}\" OWNER app TEMPLATE template0;\n\
                 ALTER DATABASE \"{quoted}\" SET work_mem TO '5MB';\n\
                 GRANT CONNECT ON DATABASE \"{quoted}\" TO \"Read er\";"
            ),
        );
        server.sql(name, &DATA.replace("@NUMBER@", &number.to_string()));
    }
}

const DATA: &str = r#"
SET ROLE app;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'päppy');
CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE TYPE pair AS (a int, b text);
CREATE TABLE types (
    id bigserial PRIMARY KEY, n numeric, f double precision, t text, b bytea, ts timestamptz,
    d date, i interval, j jsonb, a int[], m mood, p percent, c pair, r int4range, net inet,
    u uuid, yes boolean, bits bit varying(9)
);
INSERT INTO types (n, f, t, b, ts, d, i, j, a, m, p, c, r, net, u, yes, bits)
SELECT n * 1.25, sqrt(n), E'line ' || n || E'\n\t\\ '' " \u00fc', decode(md5(n::text), 'hex'),
    '2026-01-01Z'::timestamptz + n * interval '1 minute', '2026-01-01'::date + n % 300,
    n * interval '1 second', jsonb_build_object('k', n, 'l', jsonb_build_array(n, null)),
    ARRAY[n, null, -n], (ARRAY['sad', 'ok', 'päppy'])[n % 3 + 1]::mood, n % 101,
    ROW(n, 'x' || n)::pair, int4range(n, n + 5), ('10.0.0.' || n % 256)::inet,
    md5(n::text)::uuid, n % 2 = 0, B'1011'
FROM generate_series(1, 20000 + @NUMBER@) n;
INSERT INTO types (t) VALUES (NULL), (''), ('NaN'), ('\.');
INSERT INTO types (n, f) VALUES ('NaN', '-Infinity');
CREATE INDEX by_text ON types (t) WHERE yes;
CREATE TABLE parted (k int, v text) PARTITION BY RANGE (k);
CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100);
CREATE TABLE parted_high PARTITION OF parted DEFAULT;
INSERT INTO parted SELECT n, md5(n::text) FROM generate_series(1, 1000) n;
CREATE TABLE child (id bigint REFERENCES types ON DELETE CASCADE, note text);
INSERT INTO child SELECT id, 'note ' || id FROM types WHERE id % 7 = 0;
CREATE VIEW good AS SELECT id, t FROM types WHERE m = 'ok';
CREATE MATERIALIZED VIEW sums AS SELECT m, count(*) AS n FROM types GROUP BY m;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.note := coalesce(NEW.note, '-'); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION stamp();
GRANT SELECT ON types, good TO "Read er";
GRANT INSERT (id, note) ON child TO "Read er";
SELECT lo_from_bytea(4711, decode(string_agg(md5(n::text || '@NUMBER@'), ''), 'hex'))
FROM generate_series(1, 200000) n;
SELECT lo_create(4712);
SELECT lo_put(4712, 3000000, '\x00ff5c00');
SELECT lo_create(4713);
GRANT SELECT ON LARGE OBJECT 4711 TO "Read er";
COMMENT ON LARGE OBJECT 4712 IS 'with a hole';
"#;

/// What must be the same wherever a database is.
pub(crate) fn facts(server: &Server, database: &str) -> String {
    server.sql(database, FACTS)
}

const FACTS: &str = r#"
SELECT format('SELECT %L, count(*), md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM %s t',
    oid::regclass, oid::regclass)
FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm') AND relnamespace = 'public'::regnamespace
ORDER BY oid::regclass::text \gexec
SELECT 'large object', oid, lomacl, pg_get_userbyid(lomowner),
    obj_description(oid, 'pg_largeobject'),
    length(lo_get(oid)), md5(lo_get(oid))
FROM pg_largeobject_metadata ORDER BY oid;
SELECT relname, relkind, relacl, pg_get_userbyid(relowner) FROM pg_class
WHERE relnamespace = 'public'::regnamespace ORDER BY relname;
SELECT attrelid::regclass, attname, attacl FROM pg_attribute WHERE attacl IS NOT NULL
AND attrelid >= 16384 ORDER BY 1, 2;
SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1;
SELECT sequencename, last_value FROM pg_sequences ORDER BY 1;
SELECT datname, pg_get_userbyid(datdba), encoding, datcollate, datacl, setconfig
FROM pg_database LEFT JOIN pg_db_role_setting ON setdatabase = pg_database.oid
WHERE datname = current_database();
SELECT rolname, rolsuper, rolcanlogin, rolpassword, shobj_description(oid, 'pg_authid')
FROM pg_authid WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY 1;
SELECT roleid::regrole, member::regrole, admin_option FROM pg_auth_members
WHERE roleid >= 16384 ORDER BY 1, 2;
"#;
