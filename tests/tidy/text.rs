//! Rules that look at one file at a time. All of them read lines, not syntax: a rule that needs
//! more than that belongs to the compiler or to clippy. Words that are banned are written in two
//! halves here, since this file is held to the rules as well.

use crate::{Finding, SourceFile};

/// Longest file, without its tests.
const MAX_LINES: usize = 500;
/// Widest line, in characters.
const MAX_COLUMNS: usize = 100;

/// Words that say that something is not done, or was only for a moment.
const UNFINISHED: [&str; 6] = [
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("dbg", "!"),
    concat!("todo", "!"),
    concat!("unimplemented", "!"),
    concat!("#[ign", "ore"),
];
/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 3] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp", "/wt"),
];
/// The one place that asks the machine for the time.
const CLOCK: [&str; 1] = ["cli/src/env.rs"];
/// Where `unsafe` is allowed: the mapped index, what is done where it cannot be read, and the
/// kernels. A folder ends with `/`.
const UNSAFE: [&str; 3] = [
    "repo/src/index/table.rs",
    "cli/src/signals.rs",
    "repo/src/codec/kernels/",
];
/// What in `repo` may write to a file system: the local backend, and the two things a client keeps
/// for itself (the index cache, and what it has seen of the log).
const WRITERS: [&str; 5] = [
    "repo/src/backend/local.rs",
    "repo/src/backend/local/",
    "repo/src/backend/testing/",
    "repo/src/index/cache.rs",
    "repo/src/log/seen.rs",
];
/// Calls that write to a file system.
const WRITING: [&str; 17] = [
    "fs::write",
    "fs::rename",
    "fs::remove_",
    "fs::create_dir",
    "fs::hard_link",
    "fs::copy",
    "fs::set_permissions",
    "File::create",
    "File::options",
    "OpenOptions::new",
    "DirBuilder",
    "fs::unlink",
    "fs::link",
    "fs::mkdir",
    "fs::ftruncate",
    "OFlags::CREATE",
    "OFlags::WRONLY",
];

pub(crate) fn long_files(tree: &[SourceFile]) -> Vec<Finding> {
    rust(tree)
        .filter(|file| !is_test(&file.path))
        .filter_map(|file| {
            let lines = tests_begin(&file.text);
            (lines > MAX_LINES).then(|| Finding {
                path: file.path.clone(),
                line: 0,
                what: format!("{lines} lines without tests; at most {MAX_LINES}"),
            })
        })
        .collect()
}

pub(crate) fn wide_lines(tree: &[SourceFile]) -> Vec<Finding> {
    lines_where(rust(tree), |_, _, line| {
        let columns = line.chars().count();
        // A row of a table in a comment cannot be broken.
        let row = line
            .trim_start()
            .strip_prefix("//! |")
            .is_some_and(|row| row.ends_with('|'));
        (columns > MAX_COLUMNS && !row).then(|| format!("{columns} columns; at most {MAX_COLUMNS}"))
    })
}

pub(crate) fn missing_headers(tree: &[SourceFile]) -> Vec<Finding> {
    rust(tree)
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| Finding {
            path: file.path.clone(),
            line: 1,
            what: "the file does not begin with a `//!` header".to_owned(),
        })
        .collect()
}

pub(crate) fn banned_words(tree: &[SourceFile]) -> Vec<Finding> {
    lines_where(rust(tree), |_, _, line| {
        UNFINISHED
            .iter()
            .find(|word| has_word(line, word))
            .map(|word| format!("`{word}`"))
    })
}

pub(crate) fn sleeping_tests(tree: &[SourceFile]) -> Vec<Finding> {
    let needle = concat!("sle", "ep(");
    lines_where(rust(tree), |file, number, line| {
        let in_test = is_test(&file.path) || number > tests_begin(&file.text);
        (in_test && has_word(line, needle)).then(|| "a test waits for a clock".to_owned())
    })
}

pub(crate) fn clock_readers(tree: &[SourceFile]) -> Vec<Finding> {
    let needle = concat!("SystemTime::", "now");
    lines_where(
        rust(tree).filter(|file| !CLOCK.contains(&file.path.as_str())),
        |_, _, line| {
            code(line)
                .contains(needle)
                .then(|| "time is an argument".to_owned())
        },
    )
}

pub(crate) fn machine_paths(tree: &[SourceFile]) -> Vec<Finding> {
    lines_where(tree.iter(), |_, _, line| {
        MACHINE_PATHS
            .iter()
            .find(|path| line.contains(*path))
            .map(|path| format!("`{path}`"))
    })
}

pub(crate) fn unsafe_code(tree: &[SourceFile]) -> Vec<Finding> {
    let needle = concat!("uns", "afe");
    lines_where(
        rust(tree).filter(|file| !listed(&UNSAFE, &file.path)),
        |_, _, line| {
            let code = code(line);
            let lint = concat!("uns", "afe_code");
            let found = has_word(code, needle) || has_word(code, &format!("expect({lint}"));
            found.then(|| format!("`{needle}` outside the listed files"))
        },
    )
}

pub(crate) fn stray_writers(tree: &[SourceFile]) -> Vec<Finding> {
    let files = rust(tree)
        .filter(|file| file.path.starts_with("repo/src/"))
        .filter(|file| !listed(&WRITERS, &file.path) && !is_test(&file.path));
    lines_where(files, |file, number, line| {
        let call = WRITING.iter().find(|call| code(line).contains(*call))?;
        (number <= tests_begin(&file.text)).then(|| format!("`{call}` outside the listed files"))
    })
}

fn rust(tree: &[SourceFile]) -> impl Iterator<Item = &SourceFile> {
    tree.iter().filter(|file| file.path.ends_with(".rs"))
}

/// Applies `rule` to (file, line number from 1, line).
fn lines_where<'a>(
    files: impl Iterator<Item = &'a SourceFile>,
    rule: impl Fn(&SourceFile, usize, &str) -> Option<String>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            if let Some(what) = rule(file, index + 1, line) {
                findings.push(Finding {
                    path: file.path.clone(),
                    line: index + 1,
                    what,
                });
            }
        }
    }
    findings
}

/// True for files that hold nothing but tests.
pub(crate) fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || path.contains("/tests/")
        || (path.starts_with("tests/") && !path.starts_with("tests/src/"))
}

/// The number of lines before the unit tests of a file.
pub(crate) fn tests_begin(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |rest: &[&str]| {
        rest.first() == Some(&"#[cfg(test)]")
            && rest
                .iter()
                .find(|line| !line.starts_with(['#', ' ', ')', ']']))
                .is_some_and(|line| line.starts_with("mod tests {"))
    };
    (0..lines.len())
        .find(|&n| begins(lines.get(n..).unwrap_or(&[])))
        .unwrap_or(lines.len())
}

/// A line without its comment.
pub(crate) fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or(line)
}

/// True if `word` is in `line` and no letter, digit or `_` touches its ends, where these are
/// letters themselves.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let touches =
        |end: Option<char>, next: Option<char>| end.is_some_and(inside) && next.is_some_and(inside);
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|text| text.chars().next_back());
        let after = line
            .get(at + word.len()..)
            .and_then(|text| text.chars().next());
        !touches(word.chars().next(), before) && !touches(word.chars().next_back(), after)
    })
}

/// True if the list names the file or a folder it is in.
fn listed(list: &[&str], path: &str) -> bool {
    list.iter()
        .any(|entry| path == *entry || (entry.ends_with('/') && path.starts_with(entry)))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&[SourceFile]) -> Vec<Finding>;

    fn file(path: &str, text: &str) -> SourceFile {
        SourceFile {
            path: path.to_owned(),
            len: text.len() as u64,
            text: text.to_owned(),
        }
    }

    /// Asserts that the rule finds exactly the given lines.
    fn finds(rule: Rule, path: &str, text: &str, lines: &[usize]) {
        let found: Vec<usize> = rule(&[file(path, text)]).iter().map(|f| f.line).collect();
        assert_eq!(found, lines, "in {path}: {text}");
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let long = "x\n".repeat(MAX_LINES + 1);
        finds(long_files, "repo/src/a.rs", &long, &[0]);
        finds(long_files, "tests/engine/a.rs", &long, &[]);
        finds(long_files, "docs/a.md", &long, &[]);
        let tested = format!("x\n#[cfg(test)]\n#[rustfmt::skip]\nmod tests {{\n{long}}}\n");
        finds(long_files, "repo/src/a.rs", &tested, &[]);
        let not_tests = format!("#[cfg(test)]\nmod oracle;\n{long}");
        finds(long_files, "repo/src/a.rs", &not_tests, &[0]);
    }

    #[test]
    fn a_wide_line_is_found_by_characters() {
        let wide = format!("a\n{}\n", "ä".repeat(MAX_COLUMNS + 1));
        finds(wide_lines, "repo/src/a.rs", &wide, &[2]);
        finds(wide_lines, "repo/src/a.rs", &"ä".repeat(MAX_COLUMNS), &[]);
        finds(
            wide_lines,
            "repo/src/a.rs",
            &format!("//! | {wide} |\n"),
            &[2],
        );
        let row = format!("//! | {} |", "a".repeat(MAX_COLUMNS));
        finds(wide_lines, "repo/src/a.rs", &row, &[]);
    }

    #[test]
    fn a_missing_header_is_found() {
        finds(missing_headers, "repo/src/a.rs", "// no\n", &[1]);
        finds(missing_headers, "repo/src/a.rs", "", &[1]);
        finds(missing_headers, "repo/src/a.rs", "//! Yes.\n", &[]);
    }

    #[test]
    fn unfinished_words_are_found_but_not_inside_other_words() {
        for word in UNFINISHED {
            finds(
                banned_words,
                "repo/src/a.rs",
                &format!("a\n  {word}\n"),
                &[2],
            );
            finds(
                banned_words,
                "cli/src/a.rs",
                &format!("// {word}: later"),
                &[1],
            );
        }
        finds(
            banned_words,
            "repo/src/a.rs",
            concat!("let name = \"tmp-XX", "XX\";"),
            &[],
        );
        finds(banned_words, "repo/src/a.rs", concat!("my_dbg", "!()"), &[]);
    }

    #[test]
    fn a_sleeping_test_is_found_and_a_retry_may_wait() {
        let call = concat!("thread::sle", "ep(pause);");
        finds(sleeping_tests, "tests/engine/main.rs", call, &[1]);
        let unit = format!("{call}\n#[cfg(test)]\nmod tests {{\n{call}\n}}\n");
        finds(sleeping_tests, "repo/src/retry.rs", &unit, &[4]);
    }

    #[test]
    fn a_second_clock_is_found() {
        let call = concat!("let t = SystemTime::", "now();");
        finds(clock_readers, "repo/src/a.rs", call, &[1]);
        finds(
            clock_readers,
            "repo/src/a.rs",
            &format!("/// never {call}"),
            &[],
        );
        finds(clock_readers, "cli/src/env.rs", call, &[]);
    }

    #[test]
    fn a_machine_path_is_found_in_any_text() {
        for path in MACHINE_PATHS {
            finds(machine_paths, "docs/a.md", &format!("see\n{path}x"), &[2]);
        }
        finds(
            machine_paths,
            "docs/a.md",
            "a framework/thing in /srv/data",
            &[],
        );
    }

    #[test]
    fn unsafe_code_is_found_outside_its_files() {
        let block = concat!("let x = uns", "afe { y };");
        let lint = concat!("#[expect(uns", "afe_code, reason = \"\")]");
        finds(
            unsafe_code,
            "repo/src/pack.rs",
            &format!("{block}\n{lint}"),
            &[1, 2],
        );
        finds(unsafe_code, "repo/src/codec/kernels/x86.rs", block, &[]);
        finds(
            unsafe_code,
            "repo/src/a.rs",
            concat!("// nothing uns", "afe"),
            &[],
        );
        finds(
            unsafe_code,
            "repo/src/a.rs",
            concat!("#![forbid(uns", "afe_code)]"),
            &[],
        );
    }

    #[test]
    fn a_write_around_the_backend_is_found() {
        for call in WRITING {
            finds(
                stray_writers,
                "repo/src/pack.rs",
                &format!("{call}(path)?;"),
                &[1],
            );
        }
        finds(
            stray_writers,
            "repo/src/backend/local.rs",
            "fs::write(path)?;",
            &[],
        );
        finds(
            stray_writers,
            "core/src/restore/write.rs",
            "fs::write(path)?;",
            &[],
        );
        let unit = "//! x\n#[cfg(test)]\nmod tests {\nfs::write(path)?;\n}\n";
        finds(stray_writers, "repo/src/pack.rs", unit, &[]);
    }

    #[test]
    fn words_are_whole_words() {
        assert!(has_word("a word, here", "word"));
        assert!(!has_word("awordhere", "word"));
        assert!(has_word("x.call(y)", "call("));
        assert!(!has_word("recall(y)", "call("));
    }
}
