//! The rule that every way to fail is tried: each variant of each public error enum is named by a
//! test. As in `text`, a pure function over the list of files.
//!
//! An enum is one of errors if it is public and derives `thiserror::Error`; what it is comes from
//! the sources themselves, so that a new enum or variant is held to the rule from its first day.
//! Tests name a variant by its path, `Enum::Variant`, in code: comments and texts do not count.
//! The error of a crate is called `Error` inside it; elsewhere by another name, such as
//! `RepoError`, which then has to begin with the crate's.

use crate::{
    Finding, SourceFile,
    text::{code, has_word, is_test, tests_begin},
};

/// Crates with public errors.
const CRATES: [&str; 3] = ["chunker/src/", "repo/src/", "core/src/"];
/// Files of tests that are called by tests elsewhere.
const SUITES: [&str; 1] = ["repo/src/backend/testing/conformance.rs"];

/// Variants of public error enums that no test names.
pub(crate) fn untried_errors(tree: &[SourceFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let declared = tree
        .iter()
        .filter(|file| CRATES.iter().any(|folder| file.path.starts_with(folder)));
    for file in declared.filter(|file| !is_test(&file.path)) {
        for (line, of, variant) in variants(&file.text) {
            if !tree.iter().any(|test| names(test, file, of, variant)) {
                findings.push(Finding {
                    path: file.path.clone(),
                    line,
                    what: format!("no test produces {of}::{variant}"),
                });
            }
        }
    }
    findings
}

/// Line, enum and name of each variant of the public error enums in a file.
fn variants(text: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    let (mut of, mut is_error) = (None, false);
    for (line, number) in text.lines().take(tests_begin(text)).zip(1..) {
        if line.starts_with("#[derive(") {
            is_error = line.contains("Error)");
        } else if let Some(rest) = line.strip_prefix("pub enum ").filter(|_| is_error) {
            of = rest.split([' ', '<']).next();
        } else if line == "}" {
            (of, is_error) = (None, false);
        } else if let Some(of) = of
            && let Some(rest) = line.strip_prefix("    ")
            && rest.starts_with(|first: char| first.is_ascii_uppercase())
        {
            let end = rest.find(|c: char| !c.is_alphanumeric());
            found.push((number, of, &rest[..end.unwrap_or(rest.len())]));
        }
    }
    found
}

/// Whether the tests in a file name a variant of an enum that is declared in another.
fn names(test: &SourceFile, declared: &SourceFile, of: &str, variant: &str) -> bool {
    if !test.path.ends_with(".rs") {
        return false;
    }
    let top = |path: &str| path.split('/').next().map(str::to_owned);
    let is_own = top(&test.path) == top(&declared.path);
    let path = if of == "Error" && !is_own {
        let owner = top(&declared.path).unwrap_or_default();
        let (first, rest) = owner.split_at(1);
        format!("{}{rest}Error::{variant}", first.to_uppercase())
    } else {
        format!("{of}::{variant}")
    };
    let all = is_test(&test.path) || SUITES.contains(&test.path.as_str());
    let begin = if all { 0 } else { tests_begin(&test.text) };
    let mut lines = test.text.lines().skip(begin);
    lines.any(|line| has_word(code(&without_texts(line)), &path))
}

/// A line without what stands in quotes.
fn without_texts(line: &str) -> String {
    line.split('"').step_by(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECLARED: &str = "\
//! Errors.
/// What.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One.
    #[error(\"one\")]
    One,
    /// Two.
    #[error(\"two\")]
    Two {
        /// Which.
        Name: u8,
    },
    /// Three.
    #[error(transparent)]
    Three(#[from] io::Error),
}

/// No error.
#[derive(Debug)]
pub enum Kind {
    Other,
}
";

    fn untried(files: &[(&str, &str)]) -> Vec<usize> {
        let tree: Vec<_> = files
            .iter()
            .map(|(path, text)| SourceFile {
                path: (*path).to_owned(),
                len: text.len() as u64,
                text: (*text).to_owned(),
            })
            .collect();
        untried_errors(&tree)
            .iter()
            .map(|found| found.line)
            .collect()
    }

    #[test]
    fn an_error_that_no_test_names_is_found() {
        let declared = ("repo/src/error.rs", DECLARED);
        assert_eq!(untried(&[declared]), [8, 11, 17]);
        // Code is no test, nor is a comment or a text in one; a longer name is another one.
        let code = "fn f() { Error::One; }\n#[cfg(test)]\nmod tests {\n";
        let no_test = "    // Error::Two\n    \"Error::Two\"; Error::Twofold; OtherError::Two\n}\n";
        let file = format!("{code}{no_test}");
        assert_eq!(untried(&[declared, ("repo/src/a.rs", &file)]), [8, 11, 17]);
        let file = format!("{code}    assert!(matches!(x, Err(Error::Two {{ .. }})));\n}}\n");
        assert_eq!(untried(&[declared, ("repo/src/a.rs", &file)]), [8, 17]);
    }

    #[test]
    fn another_crate_names_an_error_with_its_owner() {
        let declared = ("repo/src/error.rs", DECLARED);
        let test = "Error::One; RepoError::Two; RepoError::Three(_)";
        assert_eq!(untried(&[declared, ("core/src/a/tests.rs", test)]), [8]);
        assert_eq!(
            untried(&[declared, ("repo/src/a/tests.rs", test)]),
            [11, 17]
        );
    }

    #[test]
    fn only_public_enums_of_errors_are_held_to_it() {
        let private = DECLARED.replace("pub enum Error", "enum Error");
        assert!(untried(&[("repo/src/error.rs", &private)]).is_empty());
        assert!(untried(&[("cli/src/error.rs", DECLARED)]).is_empty());
        assert!(untried(&[("repo/src/backend/tests/a.rs", DECLARED)]).is_empty());
    }
}
