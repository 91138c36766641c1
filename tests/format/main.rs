//! The stored format as a promise: frozen repositories that today's code must read, the second
//! reader that was written from `docs/format-v1.md`, and the fuzz corpora on the stable compiler.
//!
//! A frozen repository is a folder under `tests/golden/` with a README, a `manifest.txt` and the
//! repository in `repo/`. It is made once (`just golden NAME`) and never edited.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test binary: to fail loudly is its job"
)]

mod corpora;
mod frozen;
mod second_reader;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The first frozen repository of format 1.
const REPO_V1: &str = "repo-v1";
/// One with deltas, which came later.
const DELTAS: &str = "repo-v1-deltas";
/// Every frozen repository that the tests read.
const EXERCISED: [&str; 2] = [REPO_V1, DELTAS];
/// Who can open them.
const OWNER: &str = "golden owner";
const READER: &str = "golden reader";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// What a frozen repository must give back.
struct Manifest {
    files: Vec<Expected>,
    /// Tag, number of regular files, sum of their lengths.
    totals: Vec<(String, usize, u64)>,
}

/// A regular file that is not empty.
struct Expected {
    /// The tag of its snapshot.
    tag: String,
    hash: String,
    len: u64,
    /// As the manifest shows it.
    shown: String,
}

impl Manifest {
    fn load(name: &str) -> Self {
        let text = fs::read_to_string(golden(name).join("manifest.txt")).unwrap();
        let (mut files, mut totals) = (Vec::new(), Vec::new());
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [tag, hash, number, last] = fields[..] else {
                panic!("not a line of a manifest: {line}");
            };
            if hash == "total" {
                totals.push((
                    tag.to_owned(),
                    number.parse().unwrap(),
                    last.parse().unwrap(),
                ));
                continue;
            }
            files.push(Expected {
                tag: tag.to_owned(),
                hash: hash.to_owned(),
                len: number.parse().unwrap(),
                shown: last.to_owned(),
            });
        }
        assert!(!files.is_empty() && !totals.is_empty(), "an empty manifest");
        Self { files, totals }
    }
}

#[test]
fn every_frozen_repository_is_exercised() {
    let mut found: Vec<String> = fs::read_dir(root().join("tests/golden"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "README.md")
        .collect();
    found.sort();
    assert_eq!(found, EXERCISED);
    for name in EXERCISED {
        for part in ["README.md", "manifest.txt", "repo/config"] {
            assert!(golden(name).join(part).exists(), "{name} has no {part}");
        }
    }
}
