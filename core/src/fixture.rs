//! For tests: a repository in memory, backups into it, and trees that nobody backed up.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use strongroom_repo::{
    backend::MemBackend,
    codec::Hint,
    crypto::BlobKind,
    env::testing::seeded,
    format::{
        config::ConfigBody,
        record::{self, Ext},
    },
    id::BlobId,
    repository::{Repository, testing},
    writer::WriterOptions,
};

use crate::{
    archive::{About, BackupOptions, BackupReport, backup},
    error::Error,
    format::{
        extents::{Content, Extent},
        tree::{Body, Page, TreeEntry},
    },
    node::{Metadata, Node, NodeKind},
    observer::{Observer, Recorder},
};

/// A repository with small chunks and packs.
pub(crate) fn create(store: &MemBackend) -> Repository {
    create_with(store, |_| {})
}

/// The same, but for what is changed in its configuration.
pub(crate) fn create_with(store: &MemBackend, change: impl FnOnce(&mut ConfigBody)) -> Repository {
    let mut config = testing::config();
    change(&mut config);
    let made = testing::create(Arc::new(store.clone()), seeded(1), config);
    made.unwrap().0
}

/// Backs up what is in a directory; nothing may go wrong.
pub(crate) fn back_up(repo: &Repository, from: &Path) -> BackupReport {
    back_up_as(repo, from, About::default())
}

/// As [`back_up`], with what the snapshot says of itself.
pub(crate) fn back_up_as(repo: &Repository, from: &Path, about: About) -> BackupReport {
    let options = options(from, about);
    let heard = Recorder::default();
    let report = backup(repo, &options, &heard, &AtomicBool::new(false)).unwrap();
    assert_eq!(heard.problems(), Vec::<String>::new());
    report
}

/// How the fixture backs up a directory.
pub(crate) fn options(from: &Path, about: About) -> BackupOptions {
    BackupOptions {
        about,
        writer: WriterOptions {
            pack_target: 4 << 20,
            ..WriterOptions::default()
        },
        workers: 2,
        ..BackupOptions::new(from.to_path_buf())
    }
}

/// Bytes that nothing makes smaller, others for each seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// Counts the problems that a test expects, and keeps the others as text.
pub(crate) struct Expecting<F> {
    is_expected: F,
    expected: AtomicUsize,
    others: Mutex<Vec<String>>,
}

impl<F: Fn(&Error) -> bool + Send + Sync> Expecting<F> {
    /// Expects what the question says.
    pub(crate) fn new(is_expected: F) -> Self {
        Self {
            is_expected,
            expected: AtomicUsize::new(0),
            others: Mutex::default(),
        }
    }

    /// Fails unless exactly so many expected problems were heard of, and nothing else.
    #[track_caller]
    pub(crate) fn assert(&self, times: usize) {
        let others = self.others.lock().unwrap();
        assert!(others.is_empty(), "{others:?}");
        assert_eq!(self.expected.load(Ordering::Relaxed), times);
    }
}

impl<F: Fn(&Error) -> bool + Send + Sync> Observer for Expecting<F> {
    fn problem(&self, error: &Error) {
        if (self.is_expected)(error) {
            self.expected.fetch_add(1, Ordering::Relaxed);
        } else {
            self.others.lock().unwrap().push(format!("{error:?}"));
        }
    }
}

/// A regular file.
pub(crate) fn file_entry(name: &[u8], size: u64, extents: Vec<Extent>) -> TreeEntry {
    TreeEntry {
        node: Node {
            name: name.to_vec(),
            kind: NodeKind::File { size },
            meta: Metadata {
                mode: 0o644,
                ..Metadata::default()
            },
        },
        body: Body::File(Content::Inline(extents)),
    }
}

/// A directory.
pub(crate) fn dir_entry(name: &[u8], tree: BlobId) -> TreeEntry {
    TreeEntry {
        node: Node {
            name: name.to_vec(),
            kind: NodeKind::Dir,
            meta: Metadata {
                mode: 0o755,
                ..Metadata::default()
            },
        },
        body: Body::Dir(tree),
    }
}

/// Stores a page as it is, and a blob of five bytes that it may name.
pub(crate) fn store_pages(
    repo: &Repository,
    pages: impl Fn(&mut dyn FnMut(Page) -> BlobId) -> BlobId,
) -> BlobId {
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench().unwrap();
    writer
        .put(&mut bench, BlobKind::Data, Hint::Plain, b"12345")
        .unwrap();
    let root = pages(&mut |page| {
        let bytes = record::encode(&page, &Ext::default(), "tree").unwrap();
        let stored = writer.put(&mut bench, BlobKind::Tree, Hint::Plain, &bytes);
        stored.unwrap().id
    });
    repo.keep(&writer, &mut bench).unwrap();
    root
}

/// A page of these entries.
pub(crate) fn leaf(entries: &[TreeEntry]) -> Page {
    Page::Leaf(entries.iter().map(TreeEntry::to_stored).collect())
}
