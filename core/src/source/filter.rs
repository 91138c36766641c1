//! Which entries of a source are left out: the rules of the exclude options in one compiled
//! [`Filter`]. Pure: the walk brings names, sizes and devices, and looks for marker files.
//!
//! What was named as a target is never left out itself; its contents are judged like any other.

use super::pattern::{Case, Patterns, Progress};
use crate::error::{Error, Result};

/// The rules as a user gives them.
#[derive(Clone, Debug, Default)]
pub struct FilterRules {
    /// Patterns of paths to leave out, in order (see [`super::pattern`]).
    pub exclude: Vec<Vec<u8>>,
    /// As `exclude`, ignoring case; a list of its own: neither takes back what the other matched.
    pub iexclude: Vec<Vec<u8>>,
    /// `NAME` or `NAME:HEADER`: a directory that holds a file NAME (which starts with HEADER) keeps
    /// nothing but that file.
    pub exclude_if_present: Vec<Vec<u8>>,
    /// The same for `CACHEDIR.TAG` with its standard signature.
    pub exclude_caches: bool,
    /// Regular files of more bytes than this are left out.
    pub exclude_larger_than: Option<u64>,
    /// Stay on the file system of each target; a mount point is kept as an empty directory.
    pub one_file_system: bool,
}

/// Compiled rules.
#[derive(Clone, Debug)]
pub struct Filter {
    exclude: Patterns,
    iexclude: Patterns,
    pub(super) markers: Vec<Marker>,
    max_size: Option<u64>,
    pub(super) one_file_system: bool,
}

/// A file whose presence empties its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) name: Vec<u8>,
    /// What it must start with; empty if anything will do.
    pub(super) header: Vec<u8>,
}

/// How far the patterns got along a path.
#[derive(Clone, Debug, Default)]
pub(super) struct FilterProgress {
    exclude: Progress,
    iexclude: Progress,
}

impl Filter {
    /// Compiles rules.
    ///
    /// # Errors
    /// [`Error::InvalidPattern`] or [`Error::InvalidMarker`].
    pub fn compile(rules: &FilterRules) -> Result<Self> {
        let mut markers = Vec::new();
        for marker in &rules.exclude_if_present {
            markers.push(parse_marker(marker)?);
        }
        if rules.exclude_caches {
            markers.push(Marker {
                name: b"CACHEDIR.TAG".to_vec(),
                header: CACHE_SIGNATURE.to_vec(),
            });
        }
        Ok(Self {
            exclude: Patterns::compile(&rules.exclude, Case::Sensitive)?,
            iexclude: Patterns::compile(&rules.iexclude, Case::Folded)?,
            markers,
            max_size: rules.exclude_larger_than,
            one_file_system: rules.one_file_system,
        })
    }

    pub(super) fn start(&self) -> FilterProgress {
        FilterProgress {
            exclude: self.exclude.start(),
            iexclude: self.iexclude.start(),
        }
    }

    pub(super) fn step_into(&self, from: &FilterProgress, name: &[u8], into: &mut FilterProgress) {
        self.exclude
            .step_into(&from.exclude, name, &mut into.exclude);
        self.iexclude
            .step_into(&from.iexclude, name, &mut into.iexclude);
    }

    pub(super) fn excludes(&self, at: &FilterProgress) -> bool {
        self.exclude.is_matched(&at.exclude) || self.iexclude.is_matched(&at.iexclude)
    }

    pub(super) fn is_too_large(&self, size: u64) -> bool {
        self.max_size.is_some_and(|max| size > max)
    }
}

/// First bytes of a file that marks a cache (Cache Directory Tagging Specification).
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

fn parse_marker(marker: &[u8]) -> Result<Marker> {
    let mut parts = marker.splitn(2, |&b| b == b':');
    let name = parts.next().unwrap_or_default().to_vec();
    let header = parts.next().unwrap_or_default().to_vec();
    if crate::path::check_name(&name).is_err() {
        return Err(Error::InvalidMarker {
            marker: marker.to_vec(),
        });
    }
    Ok(Marker { name, header })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn excluded(rules: &FilterRules, path: &str) -> bool {
        let filter = Filter::compile(rules).unwrap();
        let mut progress = filter.start();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let from = progress.clone();
            filter.step_into(&from, name.as_bytes(), &mut progress);
        }
        filter.excludes(&progress)
    }

    #[rstest]
    #[case("/a/x.o", true)]
    #[case("/a/x.O", false)]
    #[case("/a/x.TMP", true)]
    #[case("/a/keep.tmp", true)]
    #[case("/a/x.c", false)]
    fn the_two_pattern_lists_judge_apart(#[case] path: &str, #[case] expected: bool) {
        let rules = FilterRules {
            exclude: vec![b"*.o".to_vec(), b"!keep.tmp".to_vec()],
            iexclude: vec![b"*.tmp".to_vec()],
            ..FilterRules::default()
        };
        assert_eq!(excluded(&rules, path), expected);
    }

    #[test]
    fn without_rules_everything_stays() {
        let filter = Filter::compile(&FilterRules::default()).unwrap();
        assert!(!excluded(&FilterRules::default(), "/a/b"));
        assert!(filter.markers.is_empty() && !filter.is_too_large(u64::MAX));
    }

    #[test]
    fn the_size_limit_itself_still_fits() {
        let rules = FilterRules {
            exclude_larger_than: Some(1024),
            ..FilterRules::default()
        };
        let filter = Filter::compile(&rules).unwrap();
        assert!(!filter.is_too_large(1024));
        assert!(filter.is_too_large(1025));
    }

    #[test]
    fn a_marker_is_a_name_and_perhaps_a_header() {
        assert_eq!(
            parse_marker(b".nobackup").unwrap(),
            Marker {
                name: b".nobackup".to_vec(),
                header: Vec::new()
            }
        );
        assert_eq!(
            parse_marker(b"tag:a:b").unwrap(),
            Marker {
                name: b"tag".to_vec(),
                header: b"a:b".to_vec()
            }
        );
        for wrong in [&b""[..], b":x", b"a/b", b".."] {
            assert!(matches!(
                parse_marker(wrong),
                Err(Error::InvalidMarker { .. })
            ));
        }
    }
}
