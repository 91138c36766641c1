//! Backing up a stream of unknown length as one file: standard input, or what a command prints.
//! One thread reads and cuts, the workers seal. There is no snapshot where the source fails.

use std::{
    io::Read,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use strongroom_repo::{
    codec::Hint, crypto::BlobKind, env::Timestamp, id::BlobId, repository::Repository,
};

use super::{
    BackupOptions, BackupReport, Run,
    content::{Collected, Tools},
    is_fatal,
};
use crate::{
    error::{Error, Result, SourceAction},
    format::{
        extents::Extent,
        snapshot::Summary,
        tree::{Body, TreeBuilder, TreeEntry},
    },
    node::{Metadata, Node, NodeKind},
    observer::{Action, Done, Observer},
};

/// A stream and the name of the file that it becomes.
pub struct StreamSource<'a> {
    /// Name in the snapshot: one component.
    pub name: Vec<u8>,
    /// The bytes.
    pub reader: Box<dyn Read + Send + 'a>,
    /// Asked at the end of the bytes: did the source end well? An error means no snapshot.
    pub finish: Box<dyn FnOnce() -> std::io::Result<()> + 'a>,
}

/// Bytes read at a time.
const STEP: usize = 1 << 20;
/// Chunks on their way to the workers.
const CHUNKS: usize = 8;

/// Backs up a stream.
///
/// # Errors
/// As [`super::backup`], and where the stream cannot be read or did not end well.
pub fn backup_stream(
    repo: &Repository,
    options: &BackupOptions,
    source: StreamSource<'_>,
    observer: &dyn Observer,
    cancel: &AtomicBool,
) -> Result<BackupReport> {
    let start = repo.env().now();
    let base = repo.tail();
    let writer = repo.writer(options.writer.clone());
    let run = Run::new(repo, &writer, options, observer, cancel)?;
    let StreamSource {
        name,
        reader,
        finish,
    } = source;
    crate::path::check_name(&name).map_err(|source| Error::InvalidName {
        name: name.clone(),
        source,
    })?;
    let path = [b"/", name.as_slice()].concat();
    observer.started(&path);
    let result = run
        .store_stream(reader, options.workers, &path)
        .and_then(|stored| {
            finish().map_err(|source| Error::Source {
                action: SourceAction::Read,
                path: path.clone(),
                source,
            })?;
            Ok(stored)
        });
    let (collected, mut tools) = match result {
        Ok(stored) => stored,
        Err(error) => {
            let error = run.cause(error);
            run.keep_what_is_stored();
            return Err(error);
        }
    };
    let (len, added) = (collected.len, collected.added);
    let content = collected.finish(&run, &mut tools)?;
    let entry = TreeEntry {
        node: node(options, name, len, start),
        body: Body::File(content),
    };
    let tree = run.store_single(&mut tools, &entry)?;
    let done = Done {
        path: &path,
        action: Action::New,
        is_dir: false,
        size: len,
        added,
    };
    observer.finished(&done);
    let mut summary = Summary {
        start,
        files_new: 1,
        total_files: 1,
        ..Summary::default()
    };
    summary.total_bytes = len;
    let snapshot = run.finish(options, vec![path], tree, &mut summary, base)?;
    let errors = run.errors.load(Ordering::Relaxed);
    Ok(BackupReport {
        snapshot,
        tree,
        summary,
        errors,
        excluded: 0,
    })
}

/// The file that a stream becomes: owned by who made the backup, as old as it.
fn node(options: &BackupOptions, name: Vec<u8>, size: u64, time: Timestamp) -> Node {
    let (about, accounts) = (&options.about, &options.accounts);
    let meta = Metadata {
        mode: 0o644,
        uid: about.uid,
        gid: about.gid,
        user: accounts.user(about.uid).to_vec(),
        group: accounts.group(about.gid).to_vec(),
        mtime: time,
        ctime: time,
        ..Metadata::default()
    };
    Node {
        name,
        kind: NodeKind::File { size },
        meta,
    }
}

/// Chunks by their place in the stream, put back in order.
#[derive(Default)]
struct Ordered {
    extents: Vec<Option<(Extent, u64)>>,
    failure: Option<Error>,
}

impl Run<'_> {
    /// A tree of one entry.
    fn store_single(&self, tools: &mut Tools, entry: &TreeEntry) -> Result<BlobId> {
        let mut store = |bytes: &[u8]| {
            Ok::<_, Error>(
                self.writer
                    .put(&mut tools.bench, BlobKind::Tree, Hint::Plain, bytes)?
                    .id,
            )
        };
        let mut builder = TreeBuilder::default();
        builder.push(entry, &mut store)?;
        builder.finish(&mut store)
    }

    /// Cuts on this thread, seals on the others.
    fn store_stream(
        &self,
        mut reader: Box<dyn Read + Send + '_>,
        workers: usize,
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
            read
        });
        let Ordered { extents, failure } =
            ordered.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure.filter(is_fatal) {
            return Err(error);
        }
        self.see_that_all_lived(read)?;
        let mut tools = Tools::new(self)?;
        let mut collected = Collected::default();
        for extent in extents {
            collected.push(self, &mut tools, extent.ok_or(Error::WorkerLost)?)?;
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
