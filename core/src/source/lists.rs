//! Lists of files and patterns as people keep them in files: `--files-from`,
//! `--files-from-verbatim`, `--files-from-raw` and `--exclude-file`.
//!
//! The parsers are pure: bytes in, names out, variables from the caller. Only
//! [`expand_wildcards`] looks at the file system. UTF-16 with a byte-order mark is read as UTF-8;
//! text without a mark is taken as it is, so that names that are no UTF-8 work.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::glob::{Glob, has_wildcards};
use crate::error::{Error, ListError, Result};

/// Parses a list of patterns: one per line, trimmed, without empty lines and comments (`#`).
///
/// # Errors
/// [`Error::InvalidList`]: bad UTF-16, or a NUL byte.
pub fn parse_patterns(data: &[u8]) -> Result<Vec<Vec<u8>>> {
    parse_trimmed(data, |_, line| Ok(line.to_vec()))
}

/// As [`parse_patterns`], with `$NAME` and `${NAME}` replaced by what `variable` says (nothing if
/// unknown) and `$$` by a dollar sign: the form of an exclude file.
///
/// # Errors
/// As [`parse_patterns`], and `${` without `}`.
pub fn parse_exclude_file(
    data: &[u8],
    variable: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    parse_trimmed(data, |number, line| {
        expand_variables(number, line, variable)
    })
}

/// Parses a list of paths, one per line, taken as they are; only empty lines are skipped.
///
/// # Errors
/// As [`parse_patterns`].
pub fn parse_verbatim(data: &[u8]) -> Result<Vec<Vec<u8>>> {
    let text = decode_text(data)?;
    let mut paths = Vec::new();
    for (number, line) in lines(&text) {
        check_no_nul(number, line)?;
        if !line.is_empty() {
            paths.push(line.to_vec());
        }
    }
    Ok(paths)
}

/// Parses a list of paths, each ended by a NUL byte.
///
/// # Errors
/// [`Error::InvalidList`]: an empty name, or no NUL at the end.
pub fn parse_raw(data: &[u8]) -> Result<Vec<Vec<u8>>> {
    let Some((last, names)) = data.split_last() else {
        return Ok(Vec::new());
    };
    if *last != 0 {
        return invalid(ListError::UnterminatedName);
    }
    let names: Vec<Vec<u8>> = names.split(|&b| b == 0).map(<[u8]>::to_vec).collect();
    if names.iter().any(Vec::is_empty) {
        return invalid(ListError::EmptyName);
    }
    Ok(names)
}

/// Expands a pattern of `--files-from` to the paths that exist, sorted; a relative one is looked up
/// below `base` and stays relative. `*` matches names with a leading dot too, `**` is a `*`.
/// Directories that cannot be listed match nothing.
///
/// # Errors
/// [`Error::InvalidPattern`].
pub fn expand_wildcards(base: &Path, pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let absolute = pattern.starts_with(b"/");
    let mut found: Vec<Vec<u8>> = vec![if absolute { b"/".to_vec() } else { Vec::new() }];
    for part in pattern
        .split(|&b| b == b'/')
        .filter(|part| !part.is_empty())
    {
        if !has_wildcards(part) {
            found.iter_mut().for_each(|path| append(path, part));
            continue;
        }
        let glob = Glob::compile(part).map_err(|source| Error::InvalidPattern {
            pattern: pattern.to_vec(),
            source,
        })?;
        found = found
            .iter()
            .flat_map(|dir| entries_matching(base, dir, &glob))
            .collect();
    }
    found.retain(|path| !path.is_empty() && locate(base, path).symlink_metadata().is_ok());
    found.sort_unstable();
    Ok(found)
}

/// Parses hostile bytes as every kind of list.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_lists(data: &[u8]) {
    let variable = |name: &[u8]| (name != b"UNSET").then(|| name.repeat(2));
    for paths in [parse_verbatim(data), parse_raw(data)]
        .into_iter()
        .flatten()
    {
        assert!(
            paths
                .iter()
                .all(|path| !path.is_empty() && !path.contains(&0))
        );
    }
    if let Ok(patterns) = parse_patterns(data) {
        let trimmed = |p: &Vec<u8>| p.trim_ascii() == p && !p.is_empty() && !p.starts_with(b"#");
        assert!(patterns.iter().all(trimmed));
        if !data.contains(&b'$') {
            assert_eq!(parse_exclude_file(data, &variable).ok(), Some(patterns));
        }
    }
    let _ = parse_exclude_file(data, &variable);
}

fn parse_trimmed(
    data: &[u8],
    read: impl Fn(usize, &[u8]) -> Result<Vec<u8>>,
) -> Result<Vec<Vec<u8>>> {
    let text = decode_text(data)?;
    let mut patterns = Vec::new();
    for (number, line) in lines(&text) {
        check_no_nul(number, line)?;
        let line = line.trim_ascii();
        if !line.is_empty() && !line.starts_with(b"#") {
            patterns.push(read(number, line)?);
        }
    }
    Ok(patterns)
}

/// Removes a UTF-8 byte-order mark and converts marked UTF-16.
fn decode_text(data: &[u8]) -> Result<Vec<u8>> {
    let decode = |data: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = data.as_chunks::<2>();
        let units = pairs.iter().map(|pair| unit(*pair));
        let text: std::result::Result<String, _> = char::decode_utf16(units).collect();
        match text {
            Ok(text) if rest.is_empty() => Ok(text.into_bytes()),
            _ => invalid(ListError::BadUtf16),
        }
    };
    match data {
        [0xef, 0xbb, 0xbf, text @ ..] => Ok(text.to_vec()),
        [0xff, 0xfe, text @ ..] => decode(text, u16::from_le_bytes),
        [0xfe, 0xff, text @ ..] => decode(text, u16::from_be_bytes),
        _ => Ok(data.to_vec()),
    }
}

/// Lines with their numbers from 1, without their ends (`\n` or `\r\n`).
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text.split(|&b| b == b'\n');
    (1..).zip(lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line)))
}

fn check_no_nul(line: usize, text: &[u8]) -> Result<()> {
    if text.contains(&0) {
        return invalid(ListError::Nul { line });
    }
    Ok(())
}

fn expand_variables(
    number: usize,
    line: &[u8],
    variable: &dyn Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>> {
    let mut expanded = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(dollar) = rest.iter().position(|&b| b == b'$') {
        let (before, after) = rest.split_at(dollar);
        expanded.extend_from_slice(before);
        let after = after.get(1..).unwrap_or_default();
        if let Some(left) = after.strip_prefix(b"$") {
            expanded.push(b'$');
            rest = left;
        } else if let Some(braced) = after.strip_prefix(b"{") {
            let Some(end) = braced.iter().position(|&b| b == b'}') else {
                return invalid(ListError::UnclosedVariable { line: number });
            };
            let (name, left) = braced.split_at(end);
            expanded.extend(variable(name).unwrap_or_default());
            rest = left.get(1..).unwrap_or_default();
        } else {
            let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
            let end = after
                .iter()
                .position(|b| !is_name(b))
                .unwrap_or(after.len());
            let (name, left) = after.split_at(end);
            if name.is_empty() {
                expanded.push(b'$');
            } else {
                expanded.extend(variable(name).unwrap_or_default());
            }
            rest = left;
        }
    }
    expanded.extend_from_slice(rest);
    Ok(expanded)
}

fn entries_matching(base: &Path, dir: &[u8], glob: &Glob) -> Vec<Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(locate(base, dir)) else {
        return Vec::new();
    };
    let names = entries
        .filter_map(std::result::Result::ok)
        .map(|entry| entry.file_name());
    names
        .filter(|name| glob.matches(name.as_bytes()))
        .map(|name| {
            let mut path = dir.to_vec();
            append(&mut path, name.as_bytes());
            path
        })
        .collect()
}

fn locate(base: &Path, path: &[u8]) -> PathBuf {
    base.join(OsStr::from_bytes(path))
}

fn append(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() && !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

fn invalid<T>(reason: ListError) -> Result<T> {
    Err(Error::InvalidList { reason })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn texts(list: Vec<Vec<u8>>) -> Vec<String> {
        list.into_iter()
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    fn reason(result: Result<Vec<Vec<u8>>>) -> ListError {
        match result.unwrap_err() {
            Error::InvalidList { reason } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn patterns_are_trimmed_and_comments_and_empty_lines_left_out() {
        let data = b"# exclude go-files\n  *.go \r\n\n\t\nfoo bar star.txt\n#x\nfoo/**/bar";
        assert_eq!(
            texts(parse_patterns(data).unwrap()),
            ["*.go", "foo bar star.txt", "foo/**/bar"]
        );
    }

    #[test]
    fn verbatim_lines_are_kept_as_they_are() {
        let data = b" a b \n\n# no comment\n*\r\nlast";
        assert_eq!(
            texts(parse_verbatim(data).unwrap()),
            [" a b ", "# no comment", "*", "last"]
        );
    }

    #[test]
    fn raw_names_may_hold_newlines_and_no_text() {
        let names = parse_raw(b"a\nb\0\xff\0").unwrap();
        assert_eq!(names, [&b"a\nb"[..], b"\xff"]);
        assert_eq!(parse_raw(b"").unwrap(), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_raw_list_cut_short_or_with_an_empty_name_is_refused() {
        assert_eq!(reason(parse_raw(b"a\0b")), ListError::UnterminatedName);
        assert_eq!(reason(parse_raw(b"a\0\0b\0")), ListError::EmptyName);
        assert_eq!(reason(parse_raw(b"\0")), ListError::EmptyName);
    }

    #[test]
    fn marked_text_of_either_width_is_understood() {
        assert_eq!(
            texts(parse_patterns(b"\xef\xbb\xbfa\nb").unwrap()),
            ["a", "b"]
        );
        let wide: Vec<u16> = "\u{feff}größe\r\nx".encode_utf16().collect();
        let little: Vec<u8> = wide.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = wide.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        assert_eq!(texts(parse_verbatim(&little).unwrap()), ["größe", "x"]);
        assert_eq!(texts(parse_verbatim(&big).unwrap()), ["größe", "x"]);
        assert_eq!(reason(parse_patterns(b"\xff\xfea")), ListError::BadUtf16);
        assert_eq!(
            reason(parse_patterns(b"\xff\xfe\x00\xd8")),
            ListError::BadUtf16
        );
    }

    #[test]
    fn a_nul_byte_in_lines_is_refused_with_its_line() {
        assert_eq!(
            reason(parse_verbatim(b"a\nb\0c\n")),
            ListError::Nul { line: 2 }
        );
        assert_eq!(reason(parse_patterns(b"\0")), ListError::Nul { line: 1 });
    }

    #[rstest]
    #[case("$HOME/x", "/home/bob/x")]
    #[case("${HOME}x", "/home/bobx")]
    #[case("$$HOME", "$HOME")]
    #[case("a$", "a$")]
    #[case("a$/b", "a$/b")]
    #[case("$UNSET/x", "/x")]
    #[case("$HOMEx/y", "/y")]
    #[case("no variable", "no variable")]
    fn variables_of_an_exclude_file_are_replaced(#[case] line: &str, #[case] expected: &str) {
        let variable = |name: &[u8]| (name == b"HOME").then(|| b"/home/bob".to_vec());
        let list = parse_exclude_file(line.as_bytes(), &variable).unwrap();
        assert_eq!(texts(list), [expected]);
    }

    #[test]
    fn an_unclosed_variable_is_refused_with_its_line() {
        let result = parse_exclude_file(b"a\n${HOME", &|_| None);
        assert_eq!(reason(result), ListError::UnclosedVariable { line: 2 });
    }

    #[test]
    fn wildcards_expand_to_what_exists() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/one.txt", "a/.two.txt", "b/one.txt", "b/deep/x"] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        let expand =
            |pattern: &str| texts(expand_wildcards(dir.path(), pattern.as_bytes()).unwrap());
        assert_eq!(expand("*/*.txt"), ["a/.two.txt", "a/one.txt", "b/one.txt"]);
        assert_eq!(expand("[b-z]/one.*"), ["b/one.txt"]);
        assert_eq!(expand("a/one.txt"), ["a/one.txt"]);
        assert_eq!(expand("a/none.txt"), Vec::<String>::new());
        assert_eq!(expand("none/*"), Vec::<String>::new());
        assert_eq!(expand(""), Vec::<String>::new());
        let absolute = format!("{}/?", dir.path().display());
        assert_eq!(
            expand(&absolute),
            [absolute.replace('?', "a"), absolute.replace('?', "b")]
        );
        assert!(matches!(
            expand_wildcards(dir.path(), b"a/["),
            Err(Error::InvalidPattern { .. })
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..300)) {
            fuzz_lists(&data);
        }

        #[test]
        fn random_lines_never_panic(data in "[ a#$\\{\\}\n\r\0]{0,80}") {
            fuzz_lists(data.as_bytes());
        }
    }
}
