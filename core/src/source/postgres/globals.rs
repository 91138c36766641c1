//! What of a script of roles and tablespaces a server needs that has some of them already.
//!
//! The script is what `pg_dumpall --globals-only` prints. Roles and tablespaces that exist are left
//! as they are: whoever restores onto a server in use keeps its passwords. The roles of the rest
//! come all or not at all, in one transaction, so that a second attempt finds nothing half made.
//!
//! Must stay true: statements are told apart as the server does it, so that nothing inside a
//! literal is taken for one; and no command of the client, such as one that runs a program, reaches
//! it.

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
    /// A kind of literal or comment that `pg_dumpall` does not write.
    #[error("line {line} is not as pg_dumpall writes scripts of roles")]
    Strange {
        /// Line number, from 1.
        line: usize,
    },
    /// It ends within a statement.
    #[error("the script of roles ends within a statement")]
    Truncated,
}

/// Plans what a server is to run of a script.
///
/// # Errors
/// It is none of `pg_dumpall`.
pub fn plan(script: &[u8], existing: &Existing) -> Result<Script, ScriptError> {
    let mut planned = Script::default();
    let mut stage = Stage::Settings;
    let mut at = Cursor {
        text: script,
        line: 1,
    };
    while let Some(statement) = at.statement()? {
        let words = words(statement);
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
        planned.sql.extend_from_slice(statement);
        planned.sql.push(b'\n');
        stage = next;
    }
    planned.sql.extend_from_slice(stage.until(Stage::Rest));
    Ok(planned)
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

/// A place in a script.
struct Cursor<'a> {
    text: &'a [u8],
    line: usize,
}

impl<'a> Cursor<'a> {
    /// The next statement, with its `;`.
    fn statement(&mut self) -> Result<Option<&'a [u8]>, ScriptError> {
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
        let start = self.text;
        loop {
            match self.text {
                [] => return Err(ScriptError::Truncated),
                [b';', ..] => {
                    self.skip(1);
                    let len = start.len() - self.text.len();
                    return Ok(start.get(..len));
                }
                [b'E' | b'e', b'\'', ..] => {
                    self.skip(1);
                    self.skip_quoted(b'\'', true)?;
                }
                [b'\'', ..] => self.skip_quoted(b'\'', false)?,
                [b'"', ..] => self.skip_quoted(b'"', false)?,
                [b'\\', ..] => return Err(ScriptError::Command { line: self.line }),
                [b'$', ..] | [b'/', b'*', ..] | [b'-', b'-', ..] => {
                    return Err(ScriptError::Strange { line: self.line });
                }
                _ => self.skip(1),
            }
        }
    }

    /// Skips a literal or an identifier, at whose opening quote the cursor stands. A doubled quote
    /// ends one and opens the next.
    fn skip_quoted(&mut self, quote: u8, escapes: bool) -> Result<(), ScriptError> {
        self.skip(1);
        loop {
            match self.text {
                [] => return Err(ScriptError::Truncated),
                [b'\\', ..] if escapes => self.skip(2),
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
        Ok(String::from_utf8(script.sql).unwrap())
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
        assert!(planned("COMMENT ON ROLE a IS '\n\\! x\n';").is_ok());
    }

    #[test]
    fn what_pg_dumpall_does_not_write_is_refused() {
        for script in [
            "DO $$ x; $$;",
            "CREATE /* ; */ ROLE a;",
            "CREATE -- ;\nROLE a;",
        ] {
            let result = planned(script);
            assert_eq!(result, Err(ScriptError::Strange { line: 1 }), "{script}");
        }
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
