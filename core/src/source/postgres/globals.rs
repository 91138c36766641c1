//! What of a script of roles and tablespaces a server needs that has some of them already.
//!
//! The script is what `pg_dumpall --globals-only` prints. Roles and tablespaces that exist are left
//! as they are: whoever restores onto a server in use keeps its passwords, and what its roles may
//! do. A role is made a member of another, or allowed something, only where one of the two is new.
//! The roles of the rest come all or not at all, in one transaction, so that a second attempt finds
//! nothing half made.
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
    /// How many memberships and rights are left out, since all that they are about exists.
    pub grants_left: u64,
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
        match judge(&words, existing) {
            Verdict::Run => {}
            Verdict::Leave(name) => {
                planned.left.insert(name.to_vec());
                continue;
            }
            Verdict::LeaveGrant => {
                planned.grants_left += 1;
                continue;
            }
        }
        let next = match keywords(&words) {
            [b"SET", ..] if stage == Stage::Settings => Stage::Settings,
            [b"CREATE", b"TABLESPACE", _] => Stage::Rest,
            _ => stage.max(Stage::Roles),
        };
        planned.sql.extend_from_slice(stage.until(next));
        match before_grantor(text, &words, existing) {
            Some(front) => planned.sql.extend([front, b";"].concat()),
            None => planned.sql.extend_from_slice(text),
        }
        planned.sql.push(b'\n');
        stage = next;
    }
    planned.sql.extend_from_slice(stage.until(Stage::Rest));
    Ok(planned)
}

/// Whether a statement is one of those that `pg_dumpall` writes.
fn is_usual(statement: &[u8], words: &[Word]) -> bool {
    match keywords(words) {
        [b"CREATE" | b"ALTER", b"ROLE" | b"TABLESPACE", _]
        | [b"COMMENT", b"ON", b"ROLE" | b"TABLESPACE"]
        | [b"GRANT" | b"REVOKE", ..]
        | [b"SECURITY", b"LABEL", _]
        // Around what somebody else granted.
        | [b"SET" | b"RESET", b"SESSION", b"AUTHORIZATION"] => true,
        [b"SET", ..] => SETTINGS.contains(&statement) || is_encoding(statement),
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

/// What becomes of a statement.
enum Verdict<'a> {
    /// It is run.
    Run,
    /// It is about this role or tablespace alone, which is left as it is.
    Leave(&'a [u8]),
    /// It is a membership or a right among what exists.
    LeaveGrant,
}

/// Whether a statement makes or changes what the server has.
fn judge<'a>(words: &'a [Word], existing: &Existing) -> Verdict<'a> {
    let (subject, is_grant) = match keywords(words) {
        [b"CREATE" | b"ALTER", ..] => (words.get(1..), false),
        [b"COMMENT", ..] => (words.get(2..), false),
        [b"SECURITY", ..] => (after(words, &[b"ON"]), false),
        [b"GRANT" | b"REVOKE", ..] => (after(words, &[b"ON"]), true),
        _ => return Verdict::Run,
    };
    let has_role = |role: &Word| existing.roles.contains(&role.text);
    let known = match subject {
        Some([kind, name, ..]) if kind.is(b"ROLE") => has_role(name).then_some(name),
        Some([kind, name, ..]) if kind.is(b"TABLESPACE") => {
            existing.tablespaces.contains(&name.text).then_some(name)
        }
        // A setting of the server: all have it.
        Some([kind, name, ..]) if is_grant && kind.is(b"PARAMETER") => Some(name),
        // A membership.
        None if is_grant => words.get(1).filter(|role| has_role(role)),
        _ => None,
    };
    let grantee = after(words, &[b"TO", b"FROM"]).and_then(<[Word]>::first);
    match known {
        Some(name) if !is_grant => Verdict::Leave(&name.text),
        Some(_) if grantee.is_some_and(|role| role.is(b"PUBLIC") || has_role(role)) => {
            Verdict::LeaveGrant
        }
        _ => Verdict::Run,
    }
}

/// What stands before the grantor of a membership, if that is a role that exists: what allowed it
/// to grant may be left out, so that whoever loads the script has to be the grantor.
fn before_grantor<'a>(
    statement: &'a [u8],
    words: &[Word],
    existing: &Existing,
) -> Option<&'a [u8]> {
    let is_membership = keywords(words)[0] == b"GRANT" && after(words, &[b"ON"]).is_none();
    let at = words.iter().position(|word| word.is(b"GRANTED"))?;
    let [granted, by, grantor, ..] = words.get(at..)? else {
        return None;
    };
    let is_known = by.is(b"BY") && existing.roles.contains(&grantor.text);
    let front = statement.get(..granted.at)?.trim_ascii_end();
    (is_membership && is_known).then_some(front)
}

/// What follows the first of these keywords.
fn after<'a>(words: &'a [Word], keywords: &[&[u8]]) -> Option<&'a [Word]> {
    let is_one = |word: &Word| keywords.iter().any(|keyword| word.is(keyword));
    let at = words.iter().position(is_one)?;
    words.get(at + 1..)
}

/// A word of a statement; an identifier without its quotes.
#[derive(Default)]
struct Word {
    text: Vec<u8>,
    is_quoted: bool,
    /// Where it begins.
    at: usize,
}

impl Word {
    /// Whether it is this keyword, which `pg_dumpall` writes in capitals and without quotes, as it
    /// writes no name.
    fn is(&self, keyword: &[u8]) -> bool {
        !self.is_quoted && self.text == keyword
    }
}

/// The first three words of a statement where they may be keywords; others are empty.
fn keywords(words: &[Word]) -> [&[u8]; 3] {
    [0, 1, 2].map(|at| match words.get(at) {
        Some(word) if !word.is_quoted => word.text.as_slice(),
        _ => b"",
    })
}

/// Words of a statement that are looked at: more than stand before the last name in a grant.
const WORDS: usize = 16;

/// The first words of a statement.
fn words(statement: &[u8]) -> Vec<Word> {
    let mut words = Vec::new();
    let mut rest = statement.trim_ascii_start();
    while words.len() < WORDS && !rest.is_empty() {
        let mut word = Word {
            at: statement.len() - rest.len(),
            ..Word::default()
        };
        if let Some(mut quoted) = rest.strip_prefix(b"\"") {
            word.is_quoted = true;
            while let [byte, after @ ..] = quoted {
                quoted = match (byte, after) {
                    (b'"', [b'"', after @ ..]) => after,
                    (b'"', _) => break,
                    _ => after,
                };
                word.text.push(*byte);
            }
            rest = quoted.strip_prefix(b"\"").unwrap_or_default();
        } else {
            let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
            let end = rest.iter().position(is_end).unwrap_or(rest.len());
            let (first, after) = rest.split_at_checked(end).unwrap_or((rest, b""));
            word.text.extend_from_slice(first);
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
GRANT app TO postgres;
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
    fn what_exists_gets_no_new_members_or_rights_among_itself() {
        let existing = Existing {
            roles: names(["postgres", "old", "TO", "ON", "pg_monitor"]),
            tablespaces: names(["fast"]),
        };
        let left = r#"
GRANT old TO postgres GRANTED BY postgres;
GRANT old TO "TO" WITH ADMIN OPTION, INHERIT TRUE, SET FALSE GRANTED BY postgres;
GRANT "TO" TO old;
GRANT "ON" TO old;
GRANT pg_monitor TO old;
GRANT ALL ON TABLESPACE fast TO old WITH GRANT OPTION;
GRANT CREATE ON TABLESPACE fast TO PUBLIC;
REVOKE ALL ON TABLESPACE fast FROM postgres;
GRANT SET, ALTER SYSTEM ON PARAMETER work_mem TO "ON";
"#;
        let made = r#"CREATE ROLE new;
CREATE ROLE "PUBLIC";
GRANT new TO old;
GRANT old TO new WITH ADMIN OPTION;
GRANT "ON" TO new WITH INHERIT TRUE GRANTED BY "TO";
GRANT "ON" TO new GRANTED BY "PUBLIC";
GRANT "TO" TO "PUBLIC";
GRANT pg_monitor TO new;
GRANT ALL ON TABLESPACE fast TO new;
GRANT ALL ON TABLESPACE fast TO "PUBLIC";
GRANT SET ON PARAMETER work_mem TO new;
"#;
        let slow = r"CREATE TABLESPACE slow OWNER old LOCATION '/slow';
REVOKE ALL ON TABLESPACE slow FROM old;
GRANT ALL ON TABLESPACE slow TO PUBLIC;
";
        let as_they_are = r"ALTER TABLESPACE fast SET (random_page_cost=1.1);
COMMENT ON TABLESPACE fast IS 'x';
SECURITY LABEL FOR x ON ROLE old IS 'y';
SECURITY LABEL FOR x ON TABLESPACE fast IS 'y';
";
        let script = [left, made, as_they_are, slow].concat();
        let script = plan(script.as_bytes(), &existing).unwrap();
        let sql = String::from_utf8(script.sql[FRONT.len()..].to_vec()).unwrap();
        // Whoever exists may no longer be allowed to grant.
        let made = made.replace(" GRANTED BY \"TO\"", "");
        assert_eq!(sql, format!("BEGIN;\n{made}COMMIT;\n{slow}"));
        assert_eq!(script.grants_left, 9);
        assert_eq!(script.left, names(["old", "fast"]));
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
        let loaded = REAL.replace(" GRANTED BY postgres", "");
        assert_eq!(planned(&script).unwrap(), loaded);
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
