//! `tests/reader.py`, the reader that was written from the format document alone, against frozen
//! repositories: it lists, extracts and refuses.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use super::{DELTAS, EXERCISED, Manifest, OWNER, READER, REPO_V1, golden, root};

/// The interpreter with the packages that the reader needs; fails where there is none.
fn python() -> PathBuf {
    let python = root().join("target/ci/venv/bin/python");
    let check = Command::new(&python)
        .args(["-c", "import blake3, zstandard"])
        .args(["-c", "import cryptography.hazmat.primitives.kdf.argon2"])
        .output();
    match check {
        Ok(output) if output.status.success() => python,
        Ok(output) => panic!(
            "Python packages are missing; run `.ci/prepare test`:\n{}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!(
            "{} does not run ({error}); run `.ci/prepare test`",
            python.display()
        ),
    }
}

fn reader<A: AsRef<OsStr>>(repo: &Path, password: &str, args: &[A]) -> Output {
    Command::new(python())
        .arg("-B")
        .arg(root().join("tests/reader.py"))
        .arg(repo)
        .args(args)
        .env("STRONGROOM_PASSWORD", password)
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn the_second_reader_lists_the_snapshots_and_all_files() {
    for name in EXERCISED {
        let repo = golden(name).join("repo");
        let listed = text(&reader(&repo, READER, &["list"]));
        let tags: BTreeSet<&str> = listed
            .lines()
            .map(|line| line.rsplit(' ').next().unwrap())
            .collect();
        let manifest = Manifest::load(name);
        let expected: BTreeSet<&str> = manifest
            .totals
            .iter()
            .map(|(tag, ..)| tag.as_str())
            .collect();
        assert_eq!(tags, expected);
        for (tag, count, total) in &manifest.totals {
            let files = text(&reader(&repo, OWNER, &["files", tag]));
            let sizes = files
                .lines()
                .map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
            assert_eq!(
                (files.lines().count(), sizes.sum::<u64>()),
                (*count, *total)
            );
        }
    }
}

/// Extracts a file of a snapshot with the second reader, and compares it with the manifest.
fn assert_extracts(repo: &str, tag: &str, name: &str) {
    let out = tempfile::tempdir().unwrap();
    let to = out.path().join("extracted");
    let manifest = Manifest::load(repo);
    let mut files = manifest.files.iter();
    let file = files
        .find(|file| file.tag == tag && file.shown == name)
        .unwrap();
    let args: [&OsStr; 4] = ["cat".as_ref(), tag.as_ref(), name.as_ref(), to.as_ref()];
    text(&reader(&golden(repo).join("repo"), READER, &args));
    let hash = strongroom_tests::golden::hash(&fs::read(&to).unwrap());
    assert_eq!(hash, file.hash, "{repo} {tag} {name}");
}

#[test]
fn the_second_reader_extracts_every_kind_of_file_identically() {
    let names = [
        "deep/er/est/file",
        "long.bin",
        "model.safetensors",
        "not%20%FF%20utf-8",
        "notes.txt",
        "sparse.img",
    ];
    for name in names {
        assert_extracts(REPO_V1, "second", name);
    }
}

#[test]
fn the_second_reader_decodes_deltas_of_every_codec_identically() {
    for tag in ["second", "third"] {
        for name in [
            "app.db",
            "book.txt",
            "disk.img",
            "model.safetensors",
            "swapped.npy",
        ] {
            assert_extracts(DELTAS, tag, name);
        }
    }
}

#[test]
fn the_second_reader_refuses_wrong_passwords_and_removed_snapshots() {
    let repo = golden(REPO_V1).join("repo");
    let refused = reader(&repo, "guess", &["list"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(
        message.contains("wrong password, tried on 2 slots"),
        "{message}"
    );
    let gone = reader(&repo, OWNER, &["cat", "gone", "notes.txt"]);
    assert_eq!(gone.status.code(), Some(1));
}
