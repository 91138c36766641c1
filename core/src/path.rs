//! Paths inside a snapshot ([`ArchivePath`]) and how any path is shown to people ([`escaped`]).
//!
//! Names are bytes: a path is a sequence of components, each non-empty, neither `.` nor `..`, and
//! without `/` and NUL. What must stay true: an [`ArchivePath`] joined to a folder stays below that
//! folder, and the shown form of two different paths differs.

use std::{
    cmp::Ordering,
    ffi::OsStr,
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Where an entry stands in a snapshot; the empty sequence is the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ArchivePath {
    /// Components joined by `/`, without a leading one.
    joined: Vec<u8>,
}

/// Why bytes are no component of an [`ArchivePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A name of no bytes.
    #[error("a name must not be empty")]
    Empty,
    /// `.` or `..`.
    #[error("'.' and '..' are no names")]
    Dots,
    /// A slash inside a name.
    #[error("a name must not contain '/'")]
    Slash,
    /// A NUL byte inside a name.
    #[error("a name must not contain a NUL byte")]
    Nul,
    /// The name of something else, too.
    #[error("two things cannot have one name")]
    Taken,
}

impl ArchivePath {
    /// The root of a snapshot.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Parses a path as typed: `/` separates, a leading, trailing or repeated `/` means nothing.
    ///
    /// # Errors
    /// A component is not a valid name.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidName> {
        let mut path = Self::root();
        for name in bytes.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            path.push(name)?;
        }
        Ok(path)
    }

    /// Appends a component.
    ///
    /// # Errors
    /// It is not a valid name; the path is unchanged.
    pub fn push(&mut self, name: &[u8]) -> Result<(), InvalidName> {
        check_name(name)?;
        if !self.joined.is_empty() {
            self.joined.push(b'/');
        }
        self.joined.extend_from_slice(name);
        Ok(())
    }

    /// Removes the last component; false at the root.
    pub fn pop(&mut self) -> bool {
        if self.joined.is_empty() {
            return false;
        }
        let end = self.joined.iter().rposition(|&b| b == b'/').unwrap_or(0);
        self.joined.truncate(end);
        true
    }

    /// The path with one more component.
    ///
    /// # Errors
    /// `name` is not a valid name.
    pub fn join(&self, name: &[u8]) -> Result<Self, InvalidName> {
        let mut path = self.clone();
        path.push(name)?;
        Ok(path)
    }

    /// The folder that holds the entry; none for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let mut parent = self.clone();
        parent.pop().then_some(parent)
    }

    /// The components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.joined
            .split(|&b| b == b'/')
            .filter(|name| !name.is_empty())
    }

    /// The last component; none for the root.
    #[must_use]
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// True for the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.joined.is_empty()
    }

    /// True if `self` is `ancestor` or lies below it.
    #[must_use]
    pub fn starts_with(&self, ancestor: &Self) -> bool {
        match self.joined.strip_prefix(ancestor.joined.as_slice()) {
            Some(rest) => ancestor.is_root() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }

    /// The components joined by `/`, without a leading one; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.joined
    }

    /// The place below `base` in a file system. It cannot leave `base` lexically; symbolic links on
    /// the way are the caller's care.
    #[must_use]
    pub fn under(&self, base: &Path) -> PathBuf {
        base.join(OsStr::from_bytes(&self.joined))
    }
}

/// As a directory listing sorts: component by component, names by their bytes.
impl Ord for ArchivePath {
    fn cmp(&self, other: &Self) -> Ordering {
        self.components().cmp(other.components())
    }
}

impl PartialOrd for ArchivePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The escaped form with a leading `/`.
impl fmt::Display for ArchivePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", escaped(&self.joined))
    }
}

/// Checks one component of a path.
///
/// # Errors
/// It is empty, `.`, `..`, or holds a `/` or a NUL byte.
pub fn check_name(name: &[u8]) -> Result<(), InvalidName> {
    match name {
        b"" => Err(InvalidName::Empty),
        b"." | b".." => Err(InvalidName::Dots),
        _ if name.contains(&b'/') => Err(InvalidName::Slash),
        _ if name.contains(&0) => Err(InvalidName::Nul),
        _ => Ok(()),
    }
}

/// Shows bytes of a path: printable text as it is, a backslash doubled, control and invisible
/// characters as `\n`, `\t`, `\u{..}`, bytes that are no UTF-8 as `\xNN`. Different bytes never
/// look alike, and nothing reaches a terminal that it would obey.
#[must_use]
pub fn escaped(bytes: &[u8]) -> Escaped<'_> {
    Escaped { bytes }
}

/// As [`escaped`], for messages: the middle of a very long path is left out, with its length said.
#[must_use]
pub fn abridged(bytes: &[u8]) -> Abridged<'_> {
    Abridged { bytes }
}

/// See [`abridged`].
#[derive(Clone, Copy, Debug)]
pub struct Abridged<'a> {
    bytes: &'a [u8],
}

impl fmt::Display for Abridged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// As long as the longest path that a system call takes.
        const LONGEST: usize = 4096;
        const KEPT: usize = 1024;
        let len = self.bytes.len();
        let ends = self
            .bytes
            .get(..KEPT)
            .zip(self.bytes.get(len.saturating_sub(KEPT)..));
        match ends.filter(|_| len > LONGEST) {
            Some((head, tail)) => {
                write!(
                    f,
                    "{} ({} bytes) {}",
                    escaped(head),
                    len - 2 * KEPT,
                    escaped(tail)
                )
            }
            None => escaped(self.bytes).fmt(f),
        }
    }
}

/// See [`escaped`].
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            chunk.valid().chars().try_for_each(|c| show_char(c, f))?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

fn show_char(c: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write;
    match c {
        '\\' => f.write_str("\\\\"),
        ' '..='~' => f.write_char(c),
        _ => {
            // Behind another character, so that combining marks of decomposed names stay readable.
            let pair = ['x', c].iter().collect::<String>();
            pair.escape_debug()
                .skip(1)
                .try_for_each(|e| f.write_char(e))
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn path(text: &str) -> ArchivePath {
        ArchivePath::parse(text.as_bytes()).unwrap()
    }

    #[rstest]
    #[case(b"", InvalidName::Empty)]
    #[case(b".", InvalidName::Dots)]
    #[case(b"..", InvalidName::Dots)]
    #[case(b"a/b", InvalidName::Slash)]
    #[case(b"a\0b", InvalidName::Nul)]
    fn a_name_that_could_lead_elsewhere_is_refused(
        #[case] name: &[u8],
        #[case] expected: InvalidName,
    ) {
        let mut path = path("/a");
        assert_eq!(path.push(name), Err(expected));
        assert_eq!(path.as_bytes(), b"a");
    }

    #[test]
    fn parsing_ignores_extra_slashes_but_not_dots() {
        assert_eq!(path("//a///b/").as_bytes(), b"a/b");
        assert_eq!(path("/"), ArchivePath::root());
        assert_eq!(ArchivePath::parse(b"/a/../b"), Err(InvalidName::Dots));
        assert_eq!(ArchivePath::parse(b"./a"), Err(InvalidName::Dots));
    }

    #[test]
    fn parents_names_and_components_agree() {
        let deep = path("/a/b/c");
        assert_eq!(deep.components().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(deep.file_name(), Some(&b"c"[..]));
        assert_eq!(deep.parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(ArchivePath::root()));
        assert_eq!(ArchivePath::root().parent(), None);
        assert!(!ArchivePath::root().pop());
    }

    #[test]
    fn order_is_that_of_listings_not_of_the_joined_bytes() {
        assert!(path("a/b") < path("a-b"));
        assert!(path("a") < path("a/b"));
        assert!(path("a/z") < path("b"));
    }

    #[test]
    fn starts_with_compares_whole_components() {
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a").starts_with(&path("a")));
        assert!(path("a").starts_with(&ArchivePath::root()));
        assert!(!path("ab").starts_with(&path("a")));
    }

    #[test]
    fn joined_to_a_folder_it_stays_below() {
        assert_eq!(path("/a/b").under(Path::new("/t")), Path::new("/t/a/b"));
        assert_eq!(ArchivePath::root().under(Path::new("/t")), Path::new("/t"));
    }

    #[rstest]
    #[case(b"plain name's \"quotes\"", r#"plain name's "quotes""#)]
    #[case("größe 日本".as_bytes(), "größe 日本")]
    #[case("e\u{301}".as_bytes(), "e\u{301}")]
    #[case(b"a\\x41", r"a\\x41")]
    #[case(b"line\nbreak\t\x1b[31m", r"line\nbreak\t\u{1b}[31m")]
    #[case(b"\xff\xfe", r"\xff\xfe")]
    #[case("\u{202e}gpj".as_bytes(), r"\u{202e}gpj")]
    fn shown_paths_are_readable_and_harmless(#[case] bytes: &[u8], #[case] shown: &str) {
        assert_eq!(escaped(bytes).to_string(), shown);
    }

    #[test]
    fn very_long_paths_are_cut_short_in_messages() {
        assert_eq!(abridged(&[b'a'; 4096]).to_string(), "a".repeat(4096));
        let ends = "a".repeat(1024);
        assert_eq!(
            abridged(&[b'a'; 5000]).to_string(),
            format!("{ends} (2952 bytes) {ends}")
        );
    }

    #[test]
    fn no_two_short_names_look_alike() {
        let mut seen = std::collections::HashSet::new();
        let alphabet = [b'\\', b'x', b'f', b'n', b'\n', 0xff, 0xc3, 0xa9, b'u', b'{'];
        for a in alphabet {
            for b in alphabet {
                for c in alphabet {
                    for d in alphabet {
                        assert!(seen.insert(escaped(&[a, b, c, d]).to_string()));
                    }
                }
            }
        }
    }
}
