//! Streams as the files of one snapshot.

use std::io;

use super::*;
use crate::{format::tree::Body, path::InvalidName, view::View};

/// Streams that come to their ends.
pub(super) fn of<'a, const N: usize>(files: [(&str, &'a [u8]); N]) -> Streams<'a> {
    with_ends(files.map(|(path, bytes)| (path, bytes, true)))
}

/// Streams, some of which fail at their end.
fn with_ends<'a, const N: usize>(files: [(&str, &'a [u8], bool); N]) -> Streams<'a> {
    let source = |(path, bytes, well): (&str, &'a [u8], bool)| StreamSource {
        path: ArchivePath::parse(path.as_bytes()).unwrap(),
        mode: 0o640,
        open: Box::new(move || {
            Ok(OpenStream {
                reader: Box::new(bytes),
                finish: Box::new(move || match well {
                    true => Ok(()),
                    false => Err(io::Error::other("the end is missing")),
                }),
            })
        }),
    };
    Streams {
        paths: vec![b"/all".to_vec()],
        sources: files.map(source).into(),
    }
}

fn save(
    repo: &Repository,
    streams: Streams<'_>,
) -> crate::error::Result<crate::archive::BackupReport> {
    let mut options = options(std::path::Path::new("/"), About::default());
    let ids = repo.snapshots().into_keys();
    options.parent = ids.last().map(|id| {
        let record = Snapshot::decode(&repo.load_snapshot(id).unwrap()).unwrap();
        (id, record)
    });
    backup_streams(repo, &options, streams, &Silent, &AtomicBool::new(false))
}

fn content(view: &View<'_>, path: &str) -> Vec<u8> {
    let Body::File(content) = view.lookup_typed(path.as_bytes()).unwrap().body else {
        panic!("{path} is no file");
    };
    let mut bytes = Vec::new();
    let read = view.feed(&content, &mut |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok::<_, Error>(())
    });
    assert_eq!(read.unwrap(), bytes.len() as u64);
    bytes
}

#[test]
fn several_streams_become_the_files_of_one_tree() {
    let repo = create(&MemBackend::new());
    let (big, zeros) = (noise(0, 3 << 20), vec![0; 700_000]);
    let files: [(&str, &[u8]); 5] = [
        ("z", b"last"),
        ("b/y/deep", &big),
        ("b/x", b""),
        ("b-", &zeros),
        ("a/one", b"1"),
    ];
    let report = save(&repo, of(files)).unwrap();
    let view = View::of_tree(&repo, report.tree).unwrap();
    for (path, bytes) in files {
        assert!(content(&view, path) == bytes, "{path}");
    }
    let mut walk = view.walk_all();
    let mut seen = Vec::new();
    while let Some(event) = walk.next_event() {
        if let crate::view::Event::Entry(entry) = event {
            seen.push((walk.path().to_string(), entry.node.meta.mode));
        }
    }
    let expected = [
        ("/a", 0o750),
        ("/a/one", 0o640),
        ("/b", 0o750),
        ("/b/x", 0o640),
        ("/b/y", 0o750),
        ("/b/y/deep", 0o640),
        ("/b-", 0o640),
        ("/z", 0o640),
    ];
    assert_eq!(seen, expected.map(|(path, mode)| (path.to_owned(), mode)));
    let summary = report.summary;
    assert_eq!((summary.files_new, summary.dirs_new), (5, 3));
    assert_eq!(summary.total_bytes, 5 + (3 << 20) + 700_000);
}

#[test]
fn one_stream_of_several_that_fails_leaves_no_snapshot() {
    let repo = create(&MemBackend::new());
    let big = noise(0, 6 << 20);
    let files: [(&str, &[u8], bool); 3] =
        [("a", &big, true), ("b", b"half", false), ("c", b"", true)];
    let result = save(&repo, with_ends(files));
    let Err(Error::Source { path, .. }) = result else {
        panic!("{result:?}");
    };
    assert_eq!(path, b"/b");
    assert!(repo.snapshots().is_empty());
}

#[test]
fn a_path_that_is_given_twice_or_lies_in_a_file_is_refused() {
    let repo = create(&MemBackend::new());
    for paths in [["a", "a"], ["a/b", "a"], ["a", ""]] {
        let result = save(&repo, of(paths.map(|path| (path, b"".as_slice()))));
        let Err(Error::InvalidName { source, .. }) = result else {
            panic!("{result:?}");
        };
        let expected = if paths.contains(&"") {
            InvalidName::Empty
        } else {
            InvalidName::Taken
        };
        assert_eq!(source, expected, "{paths:?}");
    }
    assert!(repo.snapshots().is_empty());
}

#[test]
fn a_changed_stream_takes_about_what_changed() {
    let repo = create(&MemBackend::new());
    let mut bytes = noise(0, 12 << 20);
    save(&repo, of([("d/dump", bytes.as_slice()), ("gone", b"")])).unwrap();
    for at in (0..bytes.len() - 1000).rev().step_by(200_000) {
        bytes.drain(at..at + 100);
    }
    let report = save(&repo, of([("d/dump", bytes.as_slice()), ("new", b"")])).unwrap();
    let summary = report.summary;
    assert!(
        summary.data_added_packed < 300_000,
        "{} bytes",
        summary.data_added_packed
    );
    assert_eq!((summary.files_changed, summary.files_new), (1, 1));
    assert_eq!(summary.dirs_changed, 1);
    let view = View::of_tree(&repo, report.tree).unwrap();
    assert!(content(&view, "d/dump") == bytes);
}
