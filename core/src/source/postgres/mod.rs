//! What is known of PostgreSQL, without a server: how a URL becomes the environment of its
//! programs ([`Connection`]), how these are called, where in a snapshot a database lies, and what
//! of a script of roles a server needs ([`globals`]). Who starts the programs is the caller's.
//!
//! Must stay true: no secret is in an argument, a message or an error, and no name of a database,
//! whatever its bytes, is taken for anything but a name.

pub mod globals;
mod url;

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

pub use url::{Connection, UrlError};

/// The folder of a snapshot that holds the databases.
pub const FOLDER: &[u8] = b"postgres";
/// The file of roles and tablespaces in it.
pub const GLOBALS: &[u8] = b"globals.sql";
/// What the name of a database's file ends with.
const SUFFIX: &[u8] = b".dump";
/// Most bytes that a server's list of names may have.
pub const MAX_LIST: u64 = 16 << 20;

/// Lists the databases that can be dumped, each ended by NUL. One with a limit of -2 is what an
/// interrupted `DROP DATABASE` left, to which nobody can connect.
pub const DATABASES: &str = "SELECT datname FROM pg_catalog.pg_database \
     WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 ORDER BY datname";
/// Lists all databases, each ended by NUL.
pub const ALL_DATABASES: &str = "SELECT datname FROM pg_catalog.pg_database ORDER BY datname";
/// Lists the roles, each ended by NUL.
pub const ROLES: &str = "SELECT rolname FROM pg_catalog.pg_roles ORDER BY rolname";
/// Lists the tablespaces, each ended by NUL.
pub const TABLESPACES: &str = "SELECT spcname FROM pg_catalog.pg_tablespace ORDER BY spcname";
/// Says `t` if the database connected to holds anything that a new one does not. What `initdb`
/// makes has lower numbers.
pub const HOLDS_ANYTHING: &str = "SELECT EXISTS (\
     SELECT FROM pg_catalog.pg_class WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_namespace WHERE oid >= 16384 \
     AND nspname !~ '^pg_(toast_)?temp_' \
     UNION ALL SELECT FROM pg_catalog.pg_proc WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_type WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_extension WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_language WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_cast WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_collation WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_conversion WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_am WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_operator WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_opclass WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_opfamily WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_ts_config WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_ts_dict WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_ts_parser WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_ts_template WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_foreign_data_wrapper WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_foreign_server WHERE oid >= 16384 \
     UNION ALL SELECT FROM pg_catalog.pg_largeobject_metadata \
     UNION ALL SELECT FROM pg_catalog.pg_default_acl \
     UNION ALL SELECT FROM pg_catalog.pg_event_trigger \
     UNION ALL SELECT FROM pg_catalog.pg_publication \
     UNION ALL SELECT FROM pg_catalog.pg_subscription WHERE subdbid = (\
     SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))";

/// The file of a database: its name, with `/`, `%` and control characters as `%XX`.
#[must_use]
pub fn file_of(database: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut name = Vec::with_capacity(database.len() + SUFFIX.len());
    for &byte in database {
        if matches!(byte, b'/' | b'%' | 0x7f) || byte < 0x20 {
            name.push(b'%');
            for half in [byte >> 4, byte & 15] {
                name.extend(DIGITS.get(usize::from(half)));
            }
        } else {
            name.push(byte);
        }
    }
    name.extend_from_slice(SUFFIX);
    name
}

/// The database that a file holds; none where it is not the file of a database.
#[must_use]
pub fn database_of(file: &[u8]) -> Option<Vec<u8>> {
    let name = url::decode(file.strip_suffix(SUFFIX)?).ok()?;
    // What has two spellings has one that nobody wrote.
    (!name.is_empty() && file_of(&name) == file).then_some(name)
}

/// A program and its arguments; how it reaches the server it learns from
/// [`Connection::variables`]. The database is an argument: in a variable, a service that is set as
/// well would win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The program's name.
    pub program: &'static str,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Call {
    fn new(program: &'static str, arguments: &[&str]) -> Self {
        let all = ["--no-password"].iter().chain(arguments);
        let arguments = all.map(OsString::from).collect();
        Self { program, arguments }
    }

    /// With an option that says which database to connect to, in the one form in which no name is
    /// taken for anything else.
    fn at(mut self, option: &str, database: &[u8]) -> Self {
        let mut text = option.as_bytes().to_vec();
        text.extend_from_slice(b"=dbname='");
        for &byte in database {
            if matches!(byte, b'\'' | b'\\') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text.push(b'\'');
        self.arguments.push(OsString::from_vec(text));
        self
    }

    /// Prints what a query answers, its rows each ended by NUL.
    #[must_use]
    pub fn query(sql: &str, database: &[u8]) -> Self {
        let arguments = [
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--record-separator-zero",
            "--set=ON_ERROR_STOP=1",
            "--command",
            sql,
        ];
        Self::new("psql", &arguments).at("--dbname", database)
    }

    /// Runs the script on standard input, up to the first error.
    #[must_use]
    pub fn script(database: &[u8]) -> Self {
        let form = [
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--file=-",
        ];
        Self::new("psql", &form).at("--dbname", database)
    }

    /// Prints the roles and tablespaces of a server as a script.
    #[must_use]
    pub fn dump_globals(database: &[u8]) -> Self {
        Self::new("pg_dumpall", &["--globals-only"]).at("--database", database)
    }

    /// Prints a database as an archive that is not compressed.
    #[must_use]
    pub fn dump(database: &[u8]) -> Self {
        Self::new("pg_dump", &["--format=custom", "--compress=0"]).at("--dbname", database)
    }

    /// Makes the database of the archive on standard input and fills it. `connected` is another
    /// database of the server; with `replace` one of the same name goes first.
    #[must_use]
    pub fn load(connected: &[u8], replace: bool) -> Self {
        let arguments = ["--exit-on-error", "--create", "--clean", "--if-exists"];
        let (with, without) = (&arguments[..], &arguments[..2]);
        let arguments = if replace { with } else { without };
        Self::new("pg_restore", arguments).at("--dbname", connected)
    }
}

/// The rows of a query's answer, each ended by NUL.
#[must_use]
pub fn rows(answer: &[u8]) -> Vec<Vec<u8>> {
    let rows = answer.split(|byte| *byte == 0);
    rows.filter(|row| !row.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_database_with_any_name_has_a_file_of_its_own() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"shop", b"shop.dump"),
            (b"a/b%2F\"'", b"a%2Fb%252F\"'.dump"),
            ("Bücher".as_bytes(), "Bücher.dump".as_bytes()),
            (b"..", b"...dump"),
            (b"globals.sql", b"globals.sql.dump"),
        ];
        for (database, file) in cases {
            assert_eq!(file_of(database), file);
            assert_eq!(database_of(file).as_deref(), Some(database));
        }
        let strange: [&[u8]; 7] = [
            GLOBALS,
            b".dump",
            b"shop",
            b"a%2fb.dump",
            b"a%41.dump",
            b"a%.dump",
            b"a%2.dump",
        ];
        for file in strange {
            assert_eq!(database_of(file), None, "{}", String::from_utf8_lossy(file));
        }
    }

    proptest! {
        #[test]
        fn names_come_back_from_their_files(name in prop::collection::vec(1_u8.., 1..63)) {
            let file = file_of(&name);
            prop_assert!(crate::path::check_name(&file).is_ok());
            prop_assert_eq!(database_of(&file), Some(name));
        }
    }

    #[test]
    fn no_name_is_taken_for_a_connection_or_an_option() {
        let call = Call::load(b"host=x ' \\", true);
        let last = call.arguments.last().unwrap();
        assert_eq!(last, r"--dbname=dbname='host=x \' \\'");
        assert!(call.arguments.contains(&"--clean".into()));
        let call = Call::dump_globals(b"--x");
        assert_eq!(call.arguments.last().unwrap(), "--database=dbname='--x'");
    }

    #[test]
    fn databases_that_nobody_can_connect_to_are_not_dumped() {
        for part in ["datallowconn", "NOT datistemplate", "datconnlimit <> -2"] {
            assert!(DATABASES.contains(part), "{part}");
        }
        // It is there all the same, and in the way of one that is loaded.
        assert!(!ALL_DATABASES.contains("WHERE"));
    }

    /// That they are asked for as the server wants it, the tests with a server see.
    #[test]
    fn every_kind_of_thing_that_a_database_can_hold_is_looked_for() {
        for catalog in [
            "class",
            "namespace",
            "proc",
            "type",
            "extension",
            "language",
            "cast",
            "collation",
            "conversion",
            "am",
            "operator",
            "opclass",
            "opfamily",
            "ts_config",
            "ts_dict",
            "ts_parser",
            "ts_template",
            "foreign_data_wrapper",
            "foreign_server",
        ] {
            let part = format!("FROM pg_catalog.pg_{catalog} WHERE oid >= 16384 ");
            assert!(HOLDS_ANYTHING.contains(&part), "{catalog}");
        }
        for catalog in [
            "largeobject_metadata",
            "default_acl",
            "event_trigger",
            "publication",
            "subscription WHERE subdbid =",
        ] {
            let part = format!("FROM pg_catalog.pg_{catalog}");
            assert!(HOLDS_ANYTHING.contains(&part), "{catalog}");
        }
    }

    #[test]
    fn rows_are_divided_at_nul() {
        assert_eq!(rows(b"a\0b\nc\0"), [b"a".to_vec(), b"b\nc".to_vec()]);
        assert_eq!(rows(b""), Vec::<Vec<u8>>::new());
    }
}
