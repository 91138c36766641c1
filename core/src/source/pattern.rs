//! Lists of path patterns, as `--exclude` and `--include` take them.
//!
//! A pattern is matched against absolute paths, by whole components. It matches a path if it
//! matches the path itself or one of its ancestors. A leading `/` anchors it at the root; without,
//! it may begin at any component. `**` stands for any number of components, none included; the rest
//! of the syntax is that of one component (`*`, `?`, `[a-z]`, `\`). A trailing or repeated `/`
//! means nothing, `.` and `..` are resolved lexically. `!` in front takes back what earlier
//! patterns of the same list matched.
//!
//! All patterns of a list form one automaton over components, advanced by one step per directory
//! level: the cost of an entry does not depend on the depth at which it lies, and no pattern can
//! make it explode. Pure: no I/O.

pub use super::glob::Case;
use super::glob::{Glob, fold};
use crate::error::{Error, PatternError, Result};

/// Longest pattern, in bytes: longer than any path that a system call takes.
pub const MAX_PATTERN_LEN: usize = 64 << 10;

/// A compiled list of patterns.
#[derive(Clone, Debug)]
pub struct Patterns {
    case: Case,
    /// The parts of all patterns, one after the other, each pattern closed by [`Part::End`].
    parts: Vec<Part>,
    patterns: Vec<Pattern>,
    /// Where an unanchored pattern may begin: tried at every component.
    floating: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Pattern {
    anchored: bool,
    negated: bool,
}

#[derive(Clone, Debug)]
enum Part {
    /// One component.
    One(Glob),
    /// `**`
    Any,
    /// Behind the last component of the pattern with this number.
    End(usize),
}

/// How far a list of patterns got along a path: what [`Patterns::step`] takes from a directory to
/// its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Positions in `parts` at which the next component is tried, beyond the floating ones.
    active: Vec<usize>,
    /// Which patterns matched this path or an ancestor, ascending.
    matched: Vec<usize>,
}

/// What a list of patterns says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The path, or an ancestor, is matched and not taken back.
    pub matched: bool,
    /// Something below the path may be matched: an include list must descend.
    pub may_match_below: bool,
}

impl Patterns {
    /// Compiles patterns in their order; empty ones are ignored.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`] names the first that has no meaning.
    pub fn compile<P: AsRef<[u8]>>(patterns: &[P], case: Case) -> Result<Self> {
        let mut list = Self {
            case,
            parts: Vec::new(),
            patterns: Vec::new(),
            floating: Vec::new(),
        };
        for pattern in patterns.iter().map(AsRef::as_ref).filter(|p| !p.is_empty()) {
            list.add(pattern).map_err(|source| Error::InvalidPattern {
                pattern: pattern.to_vec(),
                source,
            })?;
        }
        Ok(list)
    }

    /// True if the list matches nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The progress at the root `/`.
    #[must_use]
    pub fn start(&self) -> Progress {
        let mut progress = Progress::default();
        let mut begin = true;
        let mut number = 0;
        for (position, part) in self.parts.iter().enumerate() {
            if begin && self.patterns.get(number).is_some_and(|p| p.anchored) {
                self.reach(position, &mut progress);
            }
            begin = matches!(part, Part::End(_));
            number += usize::from(begin);
        }
        progress.settle();
        progress
    }

    /// The progress at the entry `name` of the directory whose progress is `from`.
    #[must_use]
    pub fn step(&self, from: &Progress, name: &[u8]) -> Progress {
        let mut into = Progress::default();
        self.step_into(from, name, &mut into);
        into
    }

    /// As [`Self::step`], into a value that is used again.
    pub fn step_into(&self, from: &Progress, name: &[u8], into: &mut Progress) {
        into.active.clear();
        into.matched.clone_from(&from.matched);
        let folded = match self.case {
            Case::Sensitive => None,
            Case::Folded => Some(fold(name)),
        };
        let name = folded.as_deref().unwrap_or(name);
        for &position in self.floating.iter().chain(&from.active) {
            match self.parts.get(position) {
                Some(Part::One(glob)) if glob.matches(name) => self.reach(position + 1, into),
                Some(Part::Any) => self.reach(position, into),
                _ => {}
            }
        }
        into.settle();
    }

    /// What the list says about the path at which `progress` stands.
    #[must_use]
    pub fn verdict(&self, progress: &Progress) -> Verdict {
        let mut verdict = Verdict {
            matched: false,
            may_match_below: false,
        };
        let mut matched = progress.matched.iter().peekable();
        for (number, pattern) in self.patterns.iter().enumerate() {
            let hit = matched.next_if_eq(&&number).is_some();
            if pattern.negated {
                verdict.matched &= !hit;
                verdict.may_match_below &= !hit;
            } else {
                verdict.matched |= hit;
                verdict.may_match_below |= hit || !pattern.anchored || progress.waits(self, number);
            }
        }
        verdict
    }

    /// [`Verdict::matched`] alone, and quicker: the last pattern that matches decides.
    #[must_use]
    pub fn is_matched(&self, progress: &Progress) -> bool {
        let last = progress
            .matched
            .last()
            .and_then(|&number| self.patterns.get(number));
        last.is_some_and(|pattern| !pattern.negated)
    }

    /// What the list says about an absolute path, given by its components.
    pub fn verdict_of<'a>(&self, components: impl IntoIterator<Item = &'a [u8]>) -> Verdict {
        let mut progress = self.start();
        for name in components {
            progress = self.step(&progress, name);
        }
        self.verdict(&progress)
    }

    fn add(&mut self, pattern: &[u8]) -> std::result::Result<(), PatternError> {
        if pattern.len() > MAX_PATTERN_LEN {
            return Err(PatternError::TooLong {
                limit: MAX_PATTERN_LEN,
            });
        }
        if pattern.contains(&0) {
            return Err(PatternError::Nul);
        }
        let (negated, text) = match pattern.strip_prefix(b"!") {
            Some(b"") => return Err(PatternError::EmptyNegation),
            Some(text) => (true, text),
            None => (false, pattern),
        };
        let folded = match self.case {
            Case::Sensitive => text.to_vec(),
            Case::Folded => fold(text),
        };
        let (anchored, names) = clean(&folded);
        let begin = self.parts.len();
        for name in names {
            match name {
                // Two in a row mean no more than one.
                b"**" if matches!(self.parts.get(begin..), Some([.., Part::Any])) => {}
                b"**" => self.parts.push(Part::Any),
                _ => self.parts.push(Part::One(Glob::compile(name)?)),
            }
        }
        self.parts.push(Part::End(self.patterns.len()));
        if !anchored {
            self.floating.push(begin);
            if matches!(self.parts.get(begin), Some(Part::Any)) {
                self.floating.push(begin + 1);
            }
        }
        self.patterns.push(Pattern { anchored, negated });
        Ok(())
    }

    /// Notes that the component before `position` was matched.
    fn reach(&self, position: usize, into: &mut Progress) {
        match self.parts.get(position) {
            Some(Part::End(number)) => into.matched.push(*number),
            Some(Part::Any) => {
                into.active.push(position);
                // `**` may stand for nothing; behind it is never another one.
                match self.parts.get(position + 1) {
                    Some(Part::End(number)) => into.matched.push(*number),
                    Some(_) => into.active.push(position + 1),
                    None => {}
                }
            }
            Some(Part::One(_)) => into.active.push(position),
            None => {}
        }
    }

    /// The number of the pattern to which `position` belongs.
    fn pattern_at(&self, position: usize) -> Option<usize> {
        self.parts
            .get(position..)?
            .iter()
            .find_map(|part| match part {
                Part::End(number) => Some(*number),
                Part::One(_) | Part::Any => None,
            })
    }
}

impl Progress {
    fn settle(&mut self) {
        for list in [&mut self.active, &mut self.matched] {
            if list.len() > 1 {
                list.sort_unstable();
                list.dedup();
            }
        }
    }

    fn waits(&self, patterns: &Patterns, number: usize) -> bool {
        self.active
            .iter()
            .any(|&position| patterns.pattern_at(position) == Some(number))
    }
}

/// Resolves `.`, `..` and extra slashes lexically: anchored or not, and the components left.
pub(super) fn clean(path: &[u8]) -> (bool, Vec<&[u8]>) {
    let anchored = path.starts_with(b"/");
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|&b| b == b'/') {
        match name {
            b"" | b"." => {}
            b".." if names.last().is_some_and(|last| *last != b"..") => {
                names.pop();
            }
            b".." if anchored => {}
            _ => names.push(name),
        }
    }
    if names.is_empty() && !anchored {
        names.push(b".");
    }
    (anchored, names)
}

/// Compiles hostile patterns and runs them over a hostile path; the stepwise verdict must agree
/// with a plain search over all ways to place each pattern.
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub fn fuzz_patterns(data: &[u8]) {
    let mut fields = data.split(|&b| b == b'\n');
    let path = fields.next().unwrap_or_default();
    let patterns: Vec<&[u8]> = fields.take(8).collect();
    for case in [Case::Sensitive, Case::Folded] {
        let Ok(list) = Patterns::compile(&patterns, case) else {
            continue;
        };
        let names: Vec<&[u8]> = path
            .split(|&b| b == b'/')
            .filter(|n| !n.is_empty())
            .collect();
        let mut progress = list.start();
        for name in &names {
            progress = list.step(&progress, name);
        }
        let verdict = list.verdict(&progress);
        assert_eq!(verdict.matched, list.is_matched(&progress));
        // The oracle tries every way to place `**`: too slow for long input.
        let short = |text: &[u8]| text.split(|&b| b == b'/').count() <= 10;
        if names.len() <= 10 && patterns.iter().all(|pattern| short(pattern)) {
            assert_eq!(verdict.matched, oracle::matched(&patterns, case, &names));
        }
        if verdict.matched && patterns.iter().all(|p| !p.starts_with(b"!")) {
            assert!(verdict.may_match_below);
        }
    }
}

/// The obvious and slow way to match.
#[cfg(any(test, feature = "testing"))]
mod oracle {
    use super::{Case, Glob, clean, fold};

    pub(super) fn matched(patterns: &[&[u8]], case: Case, names: &[&[u8]]) -> bool {
        let lower = |text: &[u8]| match case {
            Case::Sensitive => text.to_vec(),
            Case::Folded => fold(text),
        };
        let names: Vec<Vec<u8>> = names.iter().map(|name| lower(name)).collect();
        let mut matched = false;
        for pattern in patterns.iter().filter(|p| !p.is_empty()) {
            let text = lower(pattern.strip_prefix(b"!").unwrap_or(pattern));
            let (anchored, parts) = clean(&text);
            let starts = if anchored {
                0..=0
            } else {
                0..=names.len().saturating_sub(1)
            };
            let hit = starts
                .filter_map(|start| names.get(start..))
                .any(|rest| (anchored || !rest.is_empty()) && place(&parts, rest, !anchored));
            matched = if pattern.starts_with(b"!") {
                matched && !hit
            } else {
                matched || hit
            };
        }
        matched
    }

    /// True if the parts match a prefix of the names, with `must_take` one name at least.
    fn place(parts: &[&[u8]], names: &[Vec<u8>], must_take: bool) -> bool {
        let Some((part, parts_left)) = parts.split_first() else {
            return !must_take;
        };
        let taken = names.split_first();
        if *part == b"**" {
            return place(parts_left, names, must_take)
                || taken.is_some_and(|(_, left)| place(parts, left, false));
        }
        let Ok(glob) = Glob::compile(part) else {
            return false;
        };
        taken.is_some_and(|(name, left)| glob.matches(name) && place(parts_left, left, false))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    fn list(patterns: &[&str], case: Case) -> Patterns {
        Patterns::compile(patterns, case).unwrap()
    }

    fn verdict(patterns: &[&str], path: &str) -> Verdict {
        list(patterns, Case::Sensitive)
            .verdict_of(path.split('/').filter(|n| !n.is_empty()).map(str::as_bytes))
    }

    #[rstest]
    // whole components, anywhere, and everything below a match
    #[case("foo", "/dir1/foo/dir2/file", true)]
    #[case("foo", "/dir/foo", true)]
    #[case("foo", "/dir/foobar", false)]
    #[case("foo", "/barfoo", false)]
    #[case("models/base", "/srv/models/base/x.bin", true)]
    #[case("models/base", "/srv/models/x/base", false)]
    // a leading slash anchors, a trailing one means nothing
    #[case("/bin", "/bin/bash", true)]
    #[case("/bin", "/usr/bin/restic", false)]
    #[case("/bin/", "/bin", true)]
    #[case("cache/", "/home/u/cache", true)]
    #[case("/srv///data", "/srv/data", true)]
    #[case("/srv/../data", "/data/x", true)]
    #[case("/srv/../data", "/srv/data", false)]
    #[case("./data", "/srv/data", true)]
    #[case("../data", "/srv/data", false)]
    #[case("/", "/anything/at/all", true)]
    // a wildcard stays within its component
    #[case("b*ash", "/bin/bash", true)]
    #[case("b*ash", "/bin/ash", false)]
    #[case("*.go", "/project/main.go", true)]
    #[case("*.go", "/project/pkg.go/data", true)]
    #[case("*.c", "/project/main.go", false)]
    #[case("/srv/*", "/srv", false)]
    #[case("/srv/*", "/srv/x/y", true)]
    #[case("/*/*/x", "/a/b/x/c", true)]
    #[case("/*/*/x", "/a/x", false)]
    #[case("src/*/doc/*/*vars*.html", "/u/src/a/doc/b/myvars1.html", true)]
    #[case("src/*/doc/*/*vars*.html", "/u/src/a/doc/b/other.html", false)]
    // any number of components
    #[case("foo/**/bar", "/dir1/foo/dir2/bar/file", true)]
    #[case("foo/**/bar", "/foo/bar/file", true)]
    #[case("foo/**/bar", "/tmp/foo/bar", true)]
    #[case("foo/**/bar", "/foo/x/y/z/bar", true)]
    #[case("foo/**/bar", "/foo/x/bar", true)]
    #[case("foo/**/bar", "/bar/foo", false)]
    #[case("foo/**/bar/*.go", "/h/foo/w/p/bar/t.go", true)]
    #[case("foo/**/bar/*.go", "/h/foo/bar/sub/t.go", false)]
    #[case("a/**/b/**/c", "/a/x/b/c", true)]
    #[case("/a/**/b/**/c", "/a/x/b/c", true)]
    #[case("user/**/hidden*/**/c", "/home/user/w/x/hidden1/z/c", true)]
    #[case("**", "/x", true)]
    #[case("**/x", "/x", true)]
    #[case("/srv/**", "/srv", true)]
    #[case("/srv/**", "/other", false)]
    #[case("/**/x", "/a/b/x", true)]
    #[case("a/**/**/b", "/a/b", true)]
    fn a_pattern_matches_paths_as_documented(
        #[case] pattern: &str,
        #[case] path: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(
            verdict(&[pattern], path).matched,
            expected,
            "{pattern} on {path}"
        );
    }

    #[rstest]
    #[case("foo/bar", "/other", true)]
    #[case("*", "/x", true)]
    #[case("/foo/bar", "/foo", true)]
    #[case("/foo/bar", "/baz", false)]
    #[case("/foo/bar/baz", "/foo/bar", true)]
    #[case("/foo/bar/baz", "/foo/baz", false)]
    #[case("/foo/bar", "/foo/bar/x", true)]
    #[case("/foo/*/qux", "/foo/bar", true)]
    #[case("/foo/*/qux", "/foo/bar/boo", false)]
    #[case("/foo/**/qux", "/foo/a/b/c", true)]
    #[case("/foo/**/qux", "/bar", false)]
    #[case("/**/x", "/a/b", true)]
    #[case("/*/bar", "/foo", true)]
    fn an_include_descends_only_where_something_may_match(
        #[case] pattern: &str,
        #[case] path: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(
            verdict(&[pattern], path).may_match_below,
            expected,
            "{pattern} on {path}"
        );
    }

    #[rstest]
    #[case("/home/u/Documents", false)]
    #[case("/home/u/Documents/a.txt", false)]
    #[case("/home/u/Documents/a.o", true)]
    #[case("/home/u/Music", true)]
    #[case("/home/u/code/node_modules", true)]
    #[case("/home/u", false)]
    fn an_exclamation_mark_takes_back_earlier_matches_only(
        #[case] path: &str,
        #[case] excluded: bool,
    ) {
        let patterns = [
            "/home/u/*",
            "!/home/u/Documents",
            "!/home/u/code",
            "node_modules",
            "*.o",
        ];
        assert_eq!(verdict(&patterns, path).matched, excluded);
    }

    #[test]
    fn order_decides_between_a_pattern_and_its_negation() {
        assert!(!verdict(&["*.log", "!keep.log"], "/v/keep.log").matched);
        assert!(verdict(&["!keep.log", "*.log"], "/v/keep.log").matched);
        assert!(!verdict(&["!keep.log"], "/v/keep.log").matched);
        assert!(verdict(&[r"\!keep.log"], "/v/!keep.log").matched);
    }

    #[test]
    fn nothing_matches_without_patterns_and_empty_ones_do_not_count() {
        for patterns in [&[][..], &["", ""][..]] {
            let verdict = verdict(patterns, "/a");
            assert!(!verdict.matched && !verdict.may_match_below);
            assert!(list(patterns, Case::Sensitive).is_empty());
        }
    }

    #[test]
    fn folded_lists_ignore_case_on_both_sides() {
        let patterns = list(&["*.JPG", "/Grüße/*"], Case::Folded);
        let matched = |path: &str| {
            patterns
                .verdict_of(path.split('/').skip(1).map(str::as_bytes))
                .matched
        };
        assert!(matched("/a/B.jpg"));
        assert!(matched("/a/B.Jpg/x"));
        assert!(matched("/GRÜSSE/GRÜßE") == matched("/grüsse/x"));
        assert!(matched("/GRÜßE/x"));
        assert!(!matched("/a/b.png"));
    }

    #[test]
    fn names_that_are_no_text_match_too() {
        let patterns = Patterns::compile(&[&b"a\xff*"[..]], Case::Sensitive).unwrap();
        assert!(patterns.verdict_of([&b"a\xff\xfe"[..]]).matched);
        assert!(!patterns.verdict_of([&b"a\xfe"[..]]).matched);
    }

    #[rstest]
    #[case("!", PatternError::EmptyNegation)]
    #[case("test/[", PatternError::UnclosedClass)]
    #[case("test/**/[", PatternError::UnclosedClass)]
    #[case("a\0", PatternError::Nul)]
    fn an_invalid_pattern_is_refused_by_name(
        #[case] pattern: &str,
        #[case] expected: PatternError,
    ) {
        let error = Patterns::compile(&["ok", pattern], Case::Sensitive).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidPattern { pattern: p, source }
                if p == pattern.as_bytes() && *source == expected),
            "{error:?}"
        );
    }

    #[test]
    fn an_oversized_pattern_is_refused() {
        let pattern = "a".repeat(MAX_PATTERN_LEN + 1);
        let error = Patterns::compile(&[pattern], Case::Sensitive).unwrap_err();
        assert!(matches!(
            error,
            Error::InvalidPattern {
                source: PatternError::TooLong { .. },
                ..
            }
        ));
    }

    #[test]
    fn hostile_wildcards_stay_cheap_on_deep_paths() {
        let patterns = list(
            &["**/a/".repeat(60).as_str(), "/**/*a*a*a*b"],
            Case::Sensitive,
        );
        let verdict = patterns.verdict_of(std::iter::repeat_n(&b"aaaa"[..], 5000));
        assert!(!verdict.matched);
    }

    const PATTERNS: &str = r"!?/?((a|b|\*|\*\*|a\*|\?b|\[ab\]|\.\.)/){0,4}(a|b|\*|\*\*)";

    proptest! {
        #[test]
        fn steps_agree_with_the_obvious_search(
            path in "(/[ab]{1,2}){0,6}",
            patterns in prop::collection::vec(PATTERNS, 0..4),
        ) {
            fuzz_patterns(format!("{path}\n{}", patterns.join("\n")).as_bytes());
        }

        #[test]
        fn random_bytes_never_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_patterns(&data);
        }
    }
}
