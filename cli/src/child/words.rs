//! What is kept of the words of a program that is fed: not the statements that it was fed, which it
//! repeats where one fails, and which may hold passwords.

/// Tells the lines that may be shown.
#[derive(Debug)]
pub(super) struct Sieve {
    /// What the program's own lines begin with.
    program: String,
    /// Whether a statement is being repeated.
    repeats: bool,
    /// Whether the line before was an excerpt, below which a caret follows.
    excerpt: bool,
}

impl Sieve {
    /// For the words of a program.
    pub(super) fn of(program: &str) -> Self {
        let name = program.rsplit('/').next().unwrap_or(program);
        Self {
            program: format!("{name}:"),
            repeats: false,
            excerpt: false,
        }
    }

    /// Whether the next line may be shown.
    pub(super) fn keeps(&mut self, line: &str) -> bool {
        let caret = std::mem::take(&mut self.excerpt) && line.trim() == "^";
        let own = [self.program.as_str(), "ERROR:", "DETAIL:", "HINT:"];
        if line.starts_with("Command was:") {
            self.repeats = true;
        } else if own.iter().any(|start| line.starts_with(start)) {
            self.repeats = false;
        }
        if is_excerpt(line) {
            self.excerpt = true;
        }
        !(self.repeats || self.excerpt || caret)
    }
}

/// Whether a line is of the form `LINE n: ...`.
fn is_excerpt(line: &str) -> bool {
    let number = line
        .strip_prefix("LINE ")
        .and_then(|rest| rest.split_once(':'));
    number.is_some_and(|(number, _)| number.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
pg_restore: while PROCESSING TOC:
pg_restore: error: could not execute query: ERROR:  syntax error
LINE 2:     password 'secret'
            ^
DETAIL:  why
HINT:  what to do
Command was: CREATE USER MAPPING FOR a SERVER b OPTIONS (
    password 'secret'
);

LINE x
pg_restore: error: the next
psql:<stdin>:3: ERROR:  not this one's";

    #[test]
    fn statements_are_not_shown_but_why_they_failed_is() {
        let mut sieve = Sieve::of("/usr/bin/pg_restore");
        let shown: Vec<_> = SAID.lines().filter(|line| sieve.keeps(line)).collect();
        assert_eq!(
            shown,
            [
                "pg_restore: while PROCESSING TOC:",
                "pg_restore: error: could not execute query: ERROR:  syntax error",
                "DETAIL:  why",
                "HINT:  what to do",
                "pg_restore: error: the next",
                "psql:<stdin>:3: ERROR:  not this one's",
            ]
        );
    }
}
