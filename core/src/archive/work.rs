//! The workers: one a core, each takes a file, or a unit of a big one, from reading to sealed.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use strongroom_chunker::layout::Layout;

use super::{
    Run,
    content::{Collected, Tools, recognise, recognise_bytes, slice},
    plan::BigFile,
    promise::{Promise, Stored},
};
use crate::{
    error::{Error, Result},
    format::{
        extents::{Content, Extent},
        tree::{Body, TreeEntry},
    },
    node::{Node, NodeKind},
    observer::Action,
    source::{
        read::{Extent as Range, SourceFile},
        sqlite::copy_if_database,
        walk::Entry,
    },
};

/// What a worker takes.
pub(super) enum Job {
    /// A file that one worker stores alone.
    Small(Box<SmallFile>),
    /// A part of a file that all workers store together. Units come in order.
    Unit { file: Arc<BigFile>, unit: usize },
}

/// A file to be stored.
pub(super) struct SmallFile {
    pub(super) entry: Entry,
    pub(super) source_path: Vec<u8>,
    pub(super) path: Vec<u8>,
    pub(super) action: Action,
    pub(super) promise: Promise,
    /// What the parent snapshot has at the same path.
    pub(super) before: Option<TreeEntry>,
}

/// A worker's life.
pub(super) fn work(run: &Run<'_>, jobs: &Receiver<Job>) {
    let mut tools = match Tools::new(run) {
        Ok(tools) => tools,
        Err(error) => return run.lost_worker(error),
    };
    for job in jobs {
        if run.is_over() {
            continue;
        }
        match job {
            Job::Small(file) => {
                run.observer.started(&file.path);
                let SmallFile {
                    entry,
                    source_path,
                    action,
                    promise,
                    before,
                    ..
                } = *file;
                tools.ancestor = run.ancestor(before.as_ref(), &[]);
                let mut result = store_file(run, &mut tools, &entry, &source_path, action);
                if entry.is_device() {
                    result = result.map(|stored| dated(run, before.as_ref(), stored));
                }
                let result = result.map(|stored| judged(before.as_ref(), stored));
                tools.ancestor = None;
                promise.keep(result.and_then(|stored| {
                    run.checkpoint_if_due()?;
                    Ok(stored)
                }));
            }
            Job::Unit { file, unit } => {
                file.store_unit(run, &mut tools, unit);
                file.fail_if(run.checkpoint_if_due());
            }
        }
    }
}

/// Reads and stores a whole file.
fn store_file(
    run: &Run<'_>,
    tools: &mut Tools,
    entry: &Entry,
    path: &[u8],
    action: Action,
) -> Result<Stored> {
    let file = open(run, entry, path)?;
    let node = node_of(run, entry, &file, path);
    let mut collected = Collected::default();
    let stat = file.content_stat();
    let is_whole = stat.size > 0 && stat.blocks.saturating_mul(512) >= stat.size;
    if is_whole && stat.size <= WHOLE_FILE {
        store_whole(run, tools, &file, &mut collected)?;
    } else {
        store_ranges(run, tools, &file, &mut collected)?;
    }
    let len = collected.len;
    let added = collected.added;
    let content = collected.finish(run, tools)?;
    report_change(run, &file, path)?;
    Ok(stored(node, len, content, action, added))
}

/// Opens a file, or makes a copy of what is in it where it is a database.
pub(super) fn open(run: &Run<'_>, entry: &Entry, path: &[u8]) -> Result<SourceFile> {
    let file = SourceFile::open(entry, path)?;
    copy_if_database(file, entry, path, run.databases, &|| run.is_over())
}

/// Largest file that is read into memory at once.
const WHOLE_FILE: u64 = super::visit::BIG_FILE;

fn store_whole(
    run: &Run<'_>,
    tools: &mut Tools,
    file: &SourceFile,
    collected: &mut Collected,
) -> Result<()> {
    let size = usize::try_from(file.content_stat().size).unwrap_or(usize::MAX);
    let mut buffer = std::mem::take(&mut tools.buffer);
    buffer.resize(size, 0);
    let got = file.read_at(0, &mut buffer)?;
    buffer.truncate(got);
    let layout = recognise_bytes(&buffer)?;
    tools.look_around(run, &layout);
    for segment in layout.segments() {
        let bytes = slice(&buffer, &segment.range);
        tools.store_part(run, segment, segment.range.start, bytes, collected)?;
    }
    tools.buffer = buffer;
    Ok(())
}

/// Stores a file with holes, one that grew since the walk saw it, or one that says it is empty.
fn store_ranges(
    run: &Run<'_>,
    tools: &mut Tools,
    file: &SourceFile,
    collected: &mut Collected,
) -> Result<()> {
    let size = file.content_stat().size;
    let mut read = |offset: u64, buffer: &mut [u8]| file.read_at(offset, buffer);
    let layout = if size <= WHOLE_FILE {
        recognise(size, &mut read)?
    } else {
        Layout::plain(size)
    };
    tools.look_around(run, &layout);
    for extent in file.extents() {
        let (range, end) = match extent? {
            Range::Hole(range) => {
                let len = range.end.saturating_sub(range.start);
                run.observer.advanced(len);
                collected.push(run, tools, (Extent::Hole { len }, 0))?;
                continue;
            }
            Range::Data(range) => (range.start, Some(range.end)),
            Range::Unsized => (0, None),
        };
        let whole = if layout.is_plain() {
            let mut store = |tools: &mut Tools, stored| collected.push(run, tools, stored);
            tools.store_streamed(run, &mut read, (range, end), &mut store)?
        } else {
            let range = range..end.unwrap_or(size);
            store_segments(run, tools, file, &layout, range, collected)?
        };
        if !whole {
            return Ok(());
        }
    }
    Ok(())
}

/// Stores the data in a range of a small file; false where the file ended early.
fn store_segments(
    run: &Run<'_>,
    tools: &mut Tools,
    file: &SourceFile,
    layout: &Layout,
    range: std::ops::Range<u64>,
    collected: &mut Collected,
) -> Result<bool> {
    for segment in layout.segments() {
        let start = segment.range.start.max(range.start);
        let end = segment.range.end.min(range.end);
        if start >= end {
            continue;
        }
        let len = usize::try_from(end - start).unwrap_or(usize::MAX);
        let mut buffer = std::mem::take(&mut tools.buffer);
        buffer.resize(len, 0);
        let got = file.read_at(start, &mut buffer)?;
        buffer.truncate(got);
        tools.store_part(run, segment, start, &buffer, collected)?;
        tools.buffer = buffer;
        if got < len {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The node of an open file; what cannot be read of it is told.
pub(super) fn node_of(run: &Run<'_>, entry: &Entry, file: &SourceFile, path: &[u8]) -> Node {
    let mut problems = Vec::new();
    let node = run.metadata.file_node(entry, file, path, &mut problems);
    for problem in problems {
        run.report(&problem);
    }
    node
}

/// Says so if the file changed while it was read.
pub(super) fn report_change(run: &Run<'_>, file: &SourceFile, path: &[u8]) -> Result<()> {
    if let Some(change) = file.change()? {
        run.report(&Error::SourceChanged {
            path: path.to_vec(),
            change,
        });
    }
    Ok(())
}

/// Gives what was stored of a device its times, which the device does not tell: those that the
/// parent has for the same content, else the time of this backup. So equal times and size keep
/// meaning equal content.
pub(super) fn dated(run: &Run<'_>, before: Option<&TreeEntry>, mut stored: Stored) -> Stored {
    let known = before.filter(|before| before.body == stored.entry.body);
    let now = run.repo.env().now();
    let meta = &mut stored.entry.node.meta;
    (meta.mtime, meta.ctime) = known.map_or((now, now), |before| {
        (before.node.meta.mtime, before.node.meta.ctime)
    });
    stored
}

/// Says of what was read and turned out to be as the parent has it, all of it there, that it is
/// unchanged.
pub(super) fn judged(before: Option<&TreeEntry>, mut stored: Stored) -> Stored {
    if stored.added == 0 && before == Some(&stored.entry) {
        stored.action = Action::Unchanged;
    }
    stored
}

/// A stored file: its size is what was read.
pub(super) fn stored(
    mut node: Node,
    len: u64,
    content: Content,
    action: Action,
    added: u64,
) -> Stored {
    node.kind = NodeKind::File { size: len };
    Stored {
        entry: TreeEntry {
            node,
            body: Body::File(content),
        },
        action,
        added,
    }
}
