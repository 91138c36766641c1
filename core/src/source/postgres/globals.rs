//! What of a script of roles and tablespaces a server needs that has some of them already.
//!
//! The script is what `pg_dumpall --globals-only` prints. Roles and tablespaces that exist are left
//! as they are: whoever restores onto a server in use keeps its passwords. The roles of the rest
//! come all or not at all, in one transaction, so that a second attempt finds nothing half made.
//!
//! Must stay true: statements are told apart as the server and `psql` do it, so that nothing inside
//! a literal is taken for one; and no command of the client, such as one that runs a program,
//! reaches it. That is why only statements that `pg_dumpall` writes are let through: others could
//! change how what follows them is read, as data of `COPY` or with other rules for literals.

use std::collections::BTreeSet;

/// Names that a server has.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// Its roles.
    pub roles: BTreeSet<Vec<u8>>,
    /// Its tablespaces.
    pub tablespaces: BTreeSet<Vec<u8>>,
}

/// What a server is to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// The statements.
    pub sql: Vec<u8>,
    /// The roles and tablespaces of the script that the server has.
    pub left: BTreeSet<Vec<u8>>,
}

/// Most bytes of a script: a server with a hundred thousand roles has less.
pub const MAX_SCRIPT: u64 = 64 << 20;

/// Why a script cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScriptError {
    /// A command of the client.
    #[error("line {line} is a command of the client, which has no place in a script of roles")]
    Command {
        /// Line number, from 1.
        line: usize,
    },
    /// A statement, literal or comment of a kind that `pg_dumpall` does not write.
    #[error("line {line} is not as pg_dumpall writes scripts of roles")]
    Strange {
        /// Line number, from 1.
        line: usize,
    },
    /// It ends within a statement.
    #[error("the script of roles ends within a statement")]
    Truncated,
}

/// What goes before the statements, so that literals are read as they are here from the first on,
/// however the server is set up.
const FRONT: &[u8] = b"SET standard_conforming_strings = on;\nSET client_encoding = 'SQL_ASCII';\n";

/// Settings that a script may change: none by which a literal is read otherwise.
const SETTINGS: [&[u8]; 2] = [
    b"SET default_transaction_read_only = off;",
    b"SET standard_conforming_strings = on;",
];

/// What encodings for a client are called that a server can have as well. In others a byte of a
/// character may look like a quote or a backslash.
const ENCODINGS: &str = "EUC_CN EUC_JIS_2004 EUC_JP EUC_KR EUC_TW ISO_8859_5 ISO_8859_6 ISO_8859_7 \
     ISO_8859_8 KOI8R KOI8U LATIN1 LATIN2 LATIN3 LATIN4 LATIN5 LATIN6 LATIN7 LATIN8 LATIN9 LATIN10 \
     MULE_INTERNAL SQL_ASCII UTF8 WIN1250 WIN1251 WIN1252 WIN1253 WIN1254 WIN1255 WIN1256 WIN1257 \
     WIN1258 WIN866 WIN874";

/// Plans what a server is to run of a script.
///
/// # Errors
/// It is none of `pg_dumpall`.
pub fn plan(script: &[u8], existing: &Existing) -> Result<Script, ScriptError> {
    let mut planned = Script {
        sql: FRONT.to_vec(),
        ..Script::default()
    };
    let mut stage = Stage::Settings;
    let mut at = Cursor {
        text: script,
        line: 1,
    };
    while let Some(Statement { text, line }) = at.statement()? {
        let words = words(text);
        if !is_usual(text, &words) {
            return Err(ScriptError::Strange { line });
        }
        if let Some(name) = known(&words, existing) {
            planned.left.insert(name);
            continue;
        }
        let next = match words.as_slice() {
            [first, ..] if first == b"SET" && stage == Stage::Settings => Stage::Settings,
            [first, second, ..] if first == b"CREATE" && second == b"TABLESPACE" => Stage::Rest,
            _ => stage.max(Stage::Roles),
        };
        planned.sql.extend_from_slice(stage.until(next));
        planned.sql.extend_from_slice(text);
        planned.sql.push(b'\n');
        stage = next;
    }
    planned.sql.extend_from_slice(stage.until(Stage::Rest));
    Ok(planned)
}

/// Whether a statement is one of those that `pg_dumpall` writes.
fn is_usual(statement: &[u8], words: &[Vec<u8>]) -> bool {
    let mut words = words.iter().map(Vec::as_slice);
    match (words.next(), words.next(), words.next()) {
        (Some(b"CREATE" | b"ALTER"), Some(b"ROLE" | b"TABLESPACE"), _)
        | (Some(b"COMMENT"), Some(b"ON"), Some(b"ROLE" | b"TABLESPACE"))
        | (Some(b"GRANT" | b"REVOKE"), _, _)
        | (Some(b"SECURITY"), Some(b"LABEL"), _)
        // Around what somebody else granted.
        | (Some(b"SET" | b"RESET"), Some(b"SESSION"), Some(b"AUTHORIZATION")) => true,
        (Some(b"SET"), ..) => SETTINGS.contains(&statement) || is_encoding(statement),
        _ => false,
    }
}

/// Whether a statement sets the client's encoding to one that a server can have.
fn is_encoding(statement: &[u8]) -> bool {
    let name = statement.strip_prefix(b"SET client_encoding = '");
    let name = name.and_then(|name| name.strip_suffix(b"';"));
    name.is_some_and(|name| ENCODINGS.split(' ').any(|known| known.as_bytes() == name))
}

/// Where a script stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Settings of the session.
    Settings,
    /// In the transaction.
    Roles,
    /// Behind it: tablespaces cannot be made inside of one.
    Rest,
}

impl Stage {
    /// What leads from here to a later stage.
    const fn until(self, next: Self) -> &'static [u8] {
        match (self, next) {
            (Self::Settings, Self::Roles) => b"BEGIN;\n",
            (Self::Roles, Self::Rest) => b"COMMIT;\n",
            _ => b"",
        }
    }
}

/// The name of what a statement makes or changes, where the server has it and it is to be left.
fn known(words: &[Vec<u8>], existing: &Existing) -> Option<Vec<u8>> {
    let mut words = words.iter().map(Vec::as_slice);
    let names = match (words.next()?, words.next()?) {
        (b"CREATE" | b"ALTER", b"ROLE") => &existing.roles,
        (b"CREATE", b"TABLESPACE") => &existing.tablespaces,
        (b"COMMENT", b"ON") if words.next()? == b"ROLE" => &existing.roles,
        _ => return None,
    };
    let name = words.next()?;
    names.contains(name).then(|| name.to_vec())
}

/// The first words of a statement; an identifier without its quotes.
fn words(statement: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut rest = statement.trim_ascii_start();
    while words.len() < 4 && !rest.is_empty() {
        let mut word = Vec::new();
        if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            while let [byte, after @ ..] = quoted {
                quoted = match (byte, after) {
                    (b'"', [b'"', after @ ..]) => after,
                    (b'"', _) => break,
                    _ => after,
                };
                word.push(*byte);
            }
            rest = quoted.strip_prefix(b"\"").unwrap_or_default();
        } else {
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
            let end = rest.iter().position(is_end).unwrap_or(rest.len());
            let (first, after) = rest.split_at_checked(end).unwrap_or((rest, b""));
            word.extend_from_slice(first);
            rest = after.strip_prefix(b";").unwrap_or(after);
        }
        words.push(word);
        rest = rest.trim_ascii_start();
    }
    words
}

/// A statement of a script.
struct Statement<'a> {
    /// All of it, with its `;`.
    text: &'a [u8],
    /// The line that it begins on, from 1.
    line: usize,
}

/// A place in a script.
struct Cursor<'a> {
    text: &'a [u8],
    line: usize,
}

impl<'a> Cursor<'a> {
    /// The next statement.
    fn statement(&mut self) -> Result<Option<Statement<'a>>, ScriptError> {
        loop {
            match self.text {
                [] => return Ok(None),
                [byte, ..] if byte.is_ascii_whitespace() => self.skip(1),
                [b'-', b'-', ..] => self.skip_line(),
                // Written around scripts since they are protected against foreign commands.
                [b'\\', ..] if is_restriction(self.text) => self.skip_line(),
                _ => break,
            }
        }
        let (start, line) = (self.text, self.line);
        let mut before = b' ';
        loop {
            // A name may end with an E, and other letters make other literals.
            let is_apart = before.is_ascii_whitespace() || matches!(before, b'=' | b'(' | b',');
            before = self.text.first().copied().unwrap_or_default();
            match self.text {
                [] => return Err(ScriptError::Truncated),
                [b';', ..] => {
                    self.skip(1);
                    let len = start.len() - self.text.len();
                    let text = start.get(..len).unwrap_or_default();
                    return Ok(Some(Statement { text, line }));
                }
                [b'E' | b'e', b'\'', ..] if is_apart => {
                    self.skip(1);
                    self.skip_quoted(b'\'', true)?;
                    before = b'\'';
                }
                [b'\'', ..] if is_apart => self.skip_quoted(b'\'', false)?,
                [b'"', ..] => self.skip_quoted(b'"', false)?,
                [b'\\', ..] => return Err(ScriptError::Command { line: self.line }),
                // A colon makes psql put in one of its variables; it reads lines up to a NUL only.
                [b'$' | b'\'' | b':' | 0, ..] | [b'/', b'*', ..] | [b'-', b'-', ..] => {
                    return Err(ScriptError::Strange { line: self.line });
                }
                _ => self.skip(1),
            }
        }
    }

    /// Skips a literal or an identifier, at whose opening quote the cursor stands. A doubled quote
    /// ends one and opens the next. Without escapes a literal has no backslash: `pg_dumpall` writes
    /// one with escapes then.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) -> Result<(), ScriptError> {
        self.skip(1);
        loop {
            match self.text {
                [] => return Err(ScriptError::Truncated),
                [b'\\', 0, ..] | [0, ..] => return Err(ScriptError::Strange { line: self.line }),
                [b'\\', ..] if escapes => self.skip(2),
                [b'\\', ..] if quote == b'\'' => {
                    return Err(ScriptError::Strange { line: self.line });
                }
                [byte, next, ..] if *byte == quote && *next == quote => self.skip(2),
                [byte, ..] if *byte == quote => {
                    self.skip(1);
                    return Ok(());
                }
                _ => self.skip(1),
            }
        }
    }

    fn skip_line(&mut self) {
        let end = self.text.iter().position(|byte| *byte == b'\n');
        self.skip(end.map_or(self.text.len(), |end| end + 1));
    }

    fn skip(&mut self, len: usize) {
        let (skipped, rest) = self.text.split_at_checked(len).unwrap_or((self.text, b""));
        self.line += skipped.iter().filter(|byte| **byte == b'\n').count();
        self.text = rest;
    }
}

fn is_restriction(line: &[u8]) -> bool {
    let word = line.split(|byte| byte.is_ascii_whitespace()).next();
    matches!(word, Some(b"\\restrict" | b"\\unrestrict"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<Vec<u8>> {
        names
            .into_iter()
            .map(|name| name.as_bytes().to_vec())
            .collect()
    }

    fn existing() -> Existing {
        Existing {
            roles: names(["postgres", "odd \"one\";"]),
            tablespaces: names(["pg_default", "fast"]),
        }
    }

    fn planned(script: &str) -> Result<String, ScriptError> {
        let script = plan(script.as_bytes(), &existing())?;
        let sql = script.sql.strip_prefix(FRONT).unwrap().to_vec();
        Ok(String::from_utf8(sql).unwrap())
    }

    const SCRIPT: &str = r#"--
-- PostgreSQL database cluster dump
--

\restrict x7Yz

SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';

CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:x==$y:z=';
COMMENT ON ROLE app IS 'It''s; two
CREATE ROLE postgres;
lines';
ALTER ROLE app SET search_path TO 'a', 'b';
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER;
COMMENT ON ROLE postgres IS E'back\\slash\';';
CREATE ROLE "odd ""one"";";
ALTER ROLE "odd ""one"";" WITH NOLOGIN;
GRANT app TO postgres GRANTED BY postgres;

CREATE TABLESPACE fast OWNER app LOCATION '/fast';
CREATE TABLESPACE slow OWNER app LOCATION '/slow';
GRANT ALL ON TABLESPACE fast TO app;

\unrestrict x7Yz
"#;

    const PLANNED: &str = r"SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
BEGIN;
CREATE ROLE app;
ALTER ROLE app WITH NOSUPERUSER LOGIN PASSWORD 'SCRAM-SHA-256$4096:x==$y:z=';
COMMENT ON ROLE app IS 'It''s; two
CREATE ROLE postgres;
lines';
ALTER ROLE app SET search_path TO 'a', 'b';
GRANT app TO postgres GRANTED BY postgres;
COMMIT;
CREATE TABLESPACE slow OWNER app LOCATION '/slow';
GRANT ALL ON TABLESPACE fast TO app;
";

    #[test]
    fn roles_and_tablespaces_that_exist_are_left_and_the_others_come_in_one_transaction() {
        assert_eq!(planned(SCRIPT).unwrap(), PLANNED);
        let left = plan(SCRIPT.as_bytes(), &existing()).unwrap().left;
        assert_eq!(left, names(["postgres", "odd \"one\";", "fast"]));
        assert_eq!(
            planned("CREATE ROLE a;").unwrap(),
            "BEGIN;\nCREATE ROLE a;\nCOMMIT;\n"
        );
        assert_eq!(planned("").unwrap(), "");
    }

    #[test]
    fn a_command_of_the_client_is_refused_wherever_it_stands() {
        for (script, line) in [
            ("\\! rm x\n", 1),
            ("CREATE ROLE a;\n\\connect x\n", 2),
            ("CREATE ROLE a \\gexec\n;", 1),
            ("\\restricted x\n", 1),
        ] {
            assert_eq!(
                planned(script),
                Err(ScriptError::Command { line }),
                "{script}"
            );
        }
        assert!(planned("COMMENT ON ROLE a IS E'\n\\\\! x\n';").is_ok());
    }

    #[test]
    fn what_pg_dumpall_does_not_write_is_refused() {
        for script in [
            "DO $$ x; $$;",
            "CREATE /* ; */ ROLE a;",
            "CREATE -- ;\nROLE a;",
            "COMMENT ON DATABASE a IS 'x';",
            "SET search_path TO a;",
            "SET client_encoding = 'UTF8', 'SJIS';",
        ] {
            let result = planned(script);
            assert_eq!(result, Err(ScriptError::Strange { line: 1 }), "{script}");
        }
    }

    /// Scripts of which psql would read something as a command that is inside a literal here.
    #[test]
    fn nothing_by_which_psql_reads_the_rest_otherwise_is_let_through() {
        let end = r"\'\! touch x';";
        for (script, line) in [
            (
                "CREATE TEMP TABLE zz (x text);\nCOPY zz FROM STDIN;\n\
                 SELECT '\n\\.\n\\! touch x\n';",
                1,
            ),
            ("CREATE ROLE a;\nCOPY zz FROM STDIN;\n", 2),
            (
                "SET standard_conforming_strings = off;\n\
                 COMMENT ON ROLE a IS '\\'' \\! touch x\n';",
                1,
            ),
            ("COMMENT ON ROLE a IS '\\'' \\! touch x\n';", 1),
            (&format!("ALTER ROLE a PASSWORDE'{end}"), 1),
            (&format!("COMMENT ON ROLE a IS U&'{end}"), 1),
            (
                &format!("ALTER ROLE a SET b TO 'x\0';\nALTER ROLE a SET b TO E'{end}"),
                1,
            ),
            ("CREATE ROLE \"a\0\";", 1),
            ("CREATE ROLE a :PROMPT1;", 1),
        ] {
            let result = planned(script);
            assert_eq!(result, Err(ScriptError::Strange { line }), "{script}");
        }
        let encodings = "SJIS sjis SHIFT_JIS_2004 BIG5 GBK UHC JOHAB GB18030";
        for encoding in encodings.split(' ') {
            let script = format!("\nSET client_encoding = '{encoding}';\nCREATE ROLE \"\u{81}\";");
            let result = planned(&script);
            assert_eq!(result, Err(ScriptError::Strange { line: 2 }), "{encoding}");
        }
    }

    /// As `pg_dumpall` 15 writes it.
    const REAL: &str = r#"SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
BEGIN;
CREATE ROLE "Read er";
ALTER ROLE "Read er" WITH NOSUPERUSER NOLOGIN CONNECTION LIMIT 3 VALID UNTIL '2030-01-01 00:00+00';
COMMENT ON ROLE app IS E'It''s; a \\ and
\\! touch x
';
ALTER ROLE app SET search_path TO 'a', 'b c';
ALTER ROLE app SET application_name TO E'x\\y';
ALTER ROLE app SET standard_conforming_strings TO 'off';
ALTER ROLE app IN DATABASE shop SET work_mem TO '9MB';
SECURITY LABEL FOR 'x' ON ROLE app IS 'y';
GRANT app TO "Read er" WITH ADMIN OPTION GRANTED BY postgres;
GRANT SET ON PARAMETER log_min_duration_statement TO app WITH GRANT OPTION;
COMMIT;
CREATE TABLESPACE new OWNER postgres LOCATION '/new';
ALTER TABLESPACE new SET (random_page_cost=1.1);
REVOKE ALL ON TABLESPACE new FROM app;
SET SESSION AUTHORIZATION app;
GRANT ALL ON TABLESPACE new TO "Read er";
RESET SESSION AUTHORIZATION;
COMMENT ON TABLESPACE new IS 'x';
"#;

    #[test]
    fn all_that_pg_dumpall_writes_passes() {
        let script = REAL.replace("BEGIN;\n", "").replace("COMMIT;\n", "");
        assert_eq!(planned(&script).unwrap(), REAL);
    }

    #[test]
    fn a_script_that_was_cut_anywhere_is_refused_or_ends_between_statements() {
        for end in 0..SCRIPT.len() {
            match planned(&SCRIPT[..end]) {
                Ok(_) | Err(ScriptError::Truncated) => {}
                // The name of the command was cut.
                Err(ScriptError::Command { .. }) => assert!(SCRIPT[..end].contains('\\')),
                Err(error) => panic!("{end}: {error}"),
            }
        }
        for script in [
            "CREATE ROLE a",
            "COMMENT ON ROLE a IS 'x",
            "CREATE ROLE \"a;",
        ] {
            assert_eq!(planned(script), Err(ScriptError::Truncated), "{script}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(script in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = plan(&script, &existing());
        }
    }
}
