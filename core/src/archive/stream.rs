//! Backing up streams of unknown length as files: standard input, what a command prints, dumps of
//! databases. One stream after the other is opened and read; the caller's thread cuts, the workers
//! seal. There is no snapshot where one of the sources fails.

use std::{
    io::Read,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use strongroom_repo::{env::Timestamp, id::BlobId, repository::Repository};

use super::{
    BackupOptions, BackupReport, Begin, Run,
    ancestor::Ancestor,
    assemble::Assembler,
    content::{Collected, Tools},
    visit::Item,
};
use crate::{
    error::{Error, Result, SourceAction},
    format::{
        extents::Extent,
        snapshot::Summary,
        tree::{Body, TreeEntry},
    },
    node::{Metadata, Node, NodeKind},
    observer::{Action, Observer},
    path::{ArchivePath, InvalidName},
    view::View,
};

/// Streams that are saved as the files of one snapshot.
pub struct Streams<'a> {
    /// What the snapshot says it was made of: absolute paths.
    pub paths: Vec<Vec<u8>>,
    /// The streams, in any order; they are read in the order of their paths.
    pub sources: Vec<StreamSource<'a>>,
}

/// A stream and the file that it becomes.
pub struct StreamSource<'a> {
    /// The file in the snapshot. Folders above it are made.
    pub path: ArchivePath,
    /// Permissions of the file, such as `0o600`; the folders can be entered by whoever may read.
    pub mode: u16,
    /// Begins it, when its turn has come.
    pub open: Box<dyn FnOnce() -> std::io::Result<OpenStream<'a>> + 'a>,
}

/// A stream that has begun.
pub struct OpenStream<'a> {
    /// The bytes.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Asked at the end of the bytes: did the source end well? An error means no snapshot.
    pub finish: Box<dyn FnOnce() -> std::io::Result<()> + 'a>,
}

/// Bytes read at a time.
const STEP: usize = 1 << 20;
/// Chunks on their way to the workers.
const CHUNKS: usize = 8;

/// Backs up streams. Each is compared with the file of its path in the parent snapshot.
///
/// # Errors
/// As [`super::backup`]; where a stream cannot be read or did not end well; and
/// [`Error::InvalidName`] where a path is that of another stream's file or folder.
pub fn backup_streams(
    repo: &Repository,
    options: &BackupOptions,
    streams: Streams<'_>,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<BackupReport> {
    let start = repo.env().now();
    let base = repo.tail();
    let writer = repo.writer(options.writer.clone());
    let run = Run::new(repo, &writer, options, observer, cancel)?;
    let Streams { paths, mut sources } = streams;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    check_paths(&sources)?;
    let stored = run.store_streams(options, sources, start);
    run.conclude(options, paths, stored, Begin { start, base })
}

/// Sees that all sources, which are sorted, can be files of one tree.
fn check_paths(sources: &[StreamSource<'_>]) -> Result<()> {
    let invalid = |path: &ArchivePath, source| Error::InvalidName {
        name: path.as_bytes().to_vec(),
        source,
    };
    if let Some(source) = sources.iter().find(|source| source.path.is_root()) {
        return Err(invalid(&source.path, InvalidName::Empty));
    }
    for pair in sources.windows(2) {
        if let [first, second] = pair
            && second.path.starts_with(&first.path)
        {
            return Err(invalid(&second.path, InvalidName::Taken));
        }
    }
    Ok(())
}

/// What a stream or a folder of streams becomes: owned by who made the backup, as old as it.
fn node(options: &BackupOptions, path: &ArchivePath, kind: NodeKind, made: Made) -> Node {
    let (about, accounts) = (&options.about, &options.accounts);
    let meta = Metadata {
        mode: made.mode,
        uid: about.uid,
        gid: about.gid,
        user: accounts.user(about.uid).to_vec(),
        group: accounts.group(about.gid).to_vec(),
        mtime: made.time,
        ctime: made.time,
        ..Metadata::default()
    };
    Node {
        name: path.file_name().unwrap_or_default().to_vec(),
        kind,
        meta,
    }
}

/// How and when a node was made.
#[derive(Clone, Copy)]
struct Made {
    mode: u16,
    time: Timestamp,
}

/// Chunks by their place in the stream, put back in order.
#[derive(Default)]
struct Ordered {
    extents: Vec<Option<(Extent, u64)>>,
    failure: Option<Error>,
}

impl Run<'_> {
    /// Stores all streams, in the order of their paths, and the tree of their files.
    fn store_streams(
        &self,
        options: &BackupOptions,
        sources: Vec<StreamSource<'_>>,
        time: Timestamp,
    ) -> Result<(BlobId, Summary)> {
        let mut assembler = Assembler::new(self)?;
        let parent = self.parent.map(|(_, parent)| View::open(self.repo, parent));
        let parent = parent.transpose()?;
        let mut at = ArchivePath::root();
        for source in sources {
            let mode = source.mode;
            let folder = source.path.parent().unwrap_or_default();
            while !folder.starts_with(&at) {
                assembler.take(Item::Leave)?;
                at.pop();
            }
            for name in folder.components().skip(at.components().count()) {
                let into = at.join(name).map_err(|source| Error::InvalidName {
                    name: name.to_vec(),
                    source,
                })?;
                let mode = mode | ((mode & 0o444) >> 2);
                let before = entry_before(parent.as_ref(), &into);
                assembler.take(Item::Enter {
                    node: node(options, &into, NodeKind::Dir, Made { mode, time }),
                    before: before.and_then(|before| match before.body {
                        Body::Dir(tree) => Some(tree),
                        _ => None,
                    }),
                    path: into.as_bytes().to_vec(),
                    changed: true,
                })?;
                at = into;
            }
            let before = entry_before(parent.as_ref(), &source.path);
            let item = self.store_source(options, source, before.as_ref(), time)?;
            assembler.take(item)?;
        }
        while at.pop() {
            assembler.take(Item::Leave)?;
        }
        assembler.finish()
    }

    /// Opens, reads and stores one stream.
    fn store_source(
        &self,
        options: &BackupOptions,
        source: StreamSource<'_>,
        before: Option<&TreeEntry>,
        time: Timestamp,
    ) -> Result<Item> {
        let StreamSource { path, mode, open } = source;
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        let shown = [b"/", path.as_bytes()].concat();
        let failed = |action| {
            let path = shown.clone();
            move |source| Error::Source {
                action,
                path,
                source,
            }
        };
        self.observer.started(path.as_bytes());
        let ancestor = self.ancestor(before, &[]);
        let OpenStream { reader, finish } = open().map_err(failed(SourceAction::Open))?;
        let stored = self.store_stream(reader, options.workers, ancestor.as_ref(), &shown);
        let (collected, mut tools) = stored?;
        finish().map_err(failed(SourceAction::Read))?;
        let (size, added) = (collected.len, collected.added);
        let content = collected.finish(self, &mut tools)?;
        let entry = TreeEntry {
            node: node(options, &path, NodeKind::File { size }, Made { mode, time }),
            body: Body::File(content),
        };
        let action = match before {
            Some(_) => Action::Changed,
            None => Action::New,
        };
        Ok(Item::Ready {
            entry,
            action,
            path: path.as_bytes().to_vec(),
            added,
        })
    }

    /// Cuts on this thread, seals on the others.
    fn store_stream(
        &self,
        mut reader: Box<dyn Read + Send + '_>,
        workers: usize,
        ancestor: Option<&Arc<Ancestor>>,
        path: &[u8],
    ) -> Result<(Collected, Tools)> {
        let (chunks_out, chunks_in) = crossbeam_channel::bounded::<(usize, u64, Vec<u8>)>(CHUNKS);
        let ordered = Mutex::new(Ordered::default());
        let read = std::thread::scope(|scope| {
            for _ in 0..workers.max(1) {
                let (chunks, ordered) = (chunks_in.clone(), &ordered);
                scope.spawn(move || {
                    self.live(|| {
                        let mut tools = match Tools::new(self) {
                            Ok(tools) => tools,
                            Err(error) => return self.lost_worker(error),
                        };
                        tools.ancestor = ancestor.cloned();
                        for (at, offset, chunk) in chunks {
                            let stored = tools.store(self, None, offset, &chunk);
                            let result = stored.and_then(|done| {
                                self.checkpoint_if_due()?;
                                Ok(done)
                            });
                            settle(ordered, at, result, &self.stop);
                        }
                    });
                });
            }
            drop(chunks_in);
            let (mut count, mut offset) = (0, 0);
            let read = self.cut_stream(&mut *reader, path, &mut |chunk| {
                let len = u64::try_from(chunk.len()).unwrap_or(0);
                let sent = chunks_out.send((count, offset, chunk));
                count += 1;
                offset += len;
                sent.is_ok()
            });
            drop(chunks_out);
            read.map(|()| (count, offset))
        });
        let Ordered { extents, failure } =
            ordered.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            return Err(error);
        }
        let (count, len) = self.see_that_all_lived(read)?;
        if extents.len() != count {
            return Err(Error::WorkerLost);
        }
        let mut tools = Tools::new(self)?;
        let mut collected = Collected::default();
        for extent in extents {
            collected.push(self, &mut tools, extent.ok_or(Error::WorkerLost)?)?;
        }
        if collected.len != len {
            return Err(Error::WorkerLost);
        }
        Ok((collected, tools))
    }

    fn cut_stream(
        &self,
        reader: &mut dyn Read,
        path: &[u8],
        send: &mut dyn FnMut(Vec<u8>) -> bool,
    ) -> Result<()> {
        let mut stream = self.chunker.stream();
        let mut held = Vec::new();
        let mut step = vec![0; STEP];
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            if self.is_over() {
                return Err(Error::WorkerLost);
            }
            let got = match reader.read(&mut step) {
                Ok(got) => got,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => {
                    let (action, path) = (SourceAction::Read, path.to_vec());
                    return Err(Error::Source {
                        action,
                        path,
                        source,
                    });
                }
            };
            held.extend_from_slice(step.get(..got).unwrap_or_default());
            let mut used = 0;
            while let Some(len) = stream.push(held.get(used..).unwrap_or_default(), got == 0) {
                let chunk = held.get(used..used + len).unwrap_or_default().to_vec();
                used += len;
                if !send(chunk) {
                    return Err(Error::WorkerLost);
                }
            }
            held.drain(..used.min(held.len()));
            if got == 0 {
                return Ok(());
            }
        }
    }
}

/// What the parent snapshot has at a path. A damaged parent costs space, nothing else.
fn entry_before(parent: Option<&View<'_>>, path: &ArchivePath) -> Option<TreeEntry> {
    match parent?.lookup(path) {
        Ok(entry) => Some(entry),
        Err(Error::NoPath { .. }) => None,
        Err(error) => {
            tracing::warn!(%error, "the parent snapshot cannot be read here");
            None
        }
    }
}

fn settle(ordered: &Mutex<Ordered>, at: usize, result: Result<(Extent, u64)>, stop: &AtomicBool) {
    let mut ordered = ordered.lock().unwrap_or_else(PoisonError::into_inner);
    match result {
        Ok(extent) => {
            if ordered.extents.len() <= at {
                ordered.extents.resize_with(at + 1, || None);
            }
            if let Some(slot) = ordered.extents.get_mut(at) {
                *slot = Some(extent);
            }
        }
        Err(error) => {
            ordered.failure.get_or_insert(error);
            stop.store(true, Ordering::Relaxed);
        }
    }
}
