//! The workers: one a core, each takes a file, or a unit of a big one, from reading to sealed.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use strongroom_chunker::layout::Layout;

use super::{
    Run,
    content::{Collected, Tools, recognise},
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
                    ..
                } = *file;
                let result = store_file(run, &mut tools, &entry, &source_path, action);
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
    let file = SourceFile::open(entry, path)?;
    let node = node_of(run, entry, &file, path);
    let mut collected = Collected::default();
    let stat = file.stat();
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

/// Largest file that is read into memory at once.
const WHOLE_FILE: u64 = super::visit::BIG_FILE;
/// Bytes read at a time of a larger one, by a chunker that cannot work in segments.
const STEP: usize = 4 << 20;

fn store_whole(
    run: &Run<'_>,
    tools: &mut Tools,
    file: &SourceFile,
    collected: &mut Collected,
) -> Result<()> {
    let size = usize::try_from(file.stat().size).unwrap_or(usize::MAX);
    let mut buffer = std::mem::take(&mut tools.buffer);
    buffer.resize(size, 0);
    let got = file.read_at(0, &mut buffer)?;
    buffer.truncate(got);
    let layout = layout_of(&buffer)?;
    let result = tools.store_run(run, &buffer, layout.as_ref(), collected);
    tools.buffer = buffer;
    result
}

fn layout_of(data: &[u8]) -> Result<Option<Layout>> {
    let len = u64::try_from(data.len()).unwrap_or(u64::MAX);
    recognise(len, &mut |offset, buffer| {
        let rest = usize::try_from(offset)
            .ok()
            .and_then(|at| data.get(at..))
            .unwrap_or_default();
        let len = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        Ok(len)
    })
}

/// Stores a file with holes, one that says it is empty, or one for the streaming chunker.
fn store_ranges(
    run: &Run<'_>,
    tools: &mut Tools,
    file: &SourceFile,
    collected: &mut Collected,
) -> Result<()> {
    for extent in file.extents() {
        match extent? {
            Range::Hole(range) => {
                let len = range.end.saturating_sub(range.start);
                run.observer.advanced(len);
                collected.push(run, tools, (Extent::Hole { len }, 0))?;
            }
            Range::Data(range) => {
                if !store_streamed(run, tools, file, range.start, Some(range.end), collected)? {
                    return Ok(());
                }
            }
            Range::Unsized => {
                store_streamed(run, tools, file, 0, None, collected)?;
            }
        }
    }
    Ok(())
}

/// Cuts and stores from `start` to `end`, or to the end of the file; false where it ended early.
fn store_streamed(
    run: &Run<'_>,
    tools: &mut Tools,
    file: &SourceFile,
    start: u64,
    end: Option<u64>,
    collected: &mut Collected,
) -> Result<bool> {
    let mut stream = run.chunker.stream();
    let mut held: Vec<u8> = Vec::new();
    let mut at = start;
    loop {
        if run.is_over() {
            return Err(Error::Cancelled);
        }
        let left = end.map_or(u64::MAX, |end| end.saturating_sub(at));
        let want = usize::try_from(left).unwrap_or(usize::MAX).min(STEP);
        let before = held.len();
        held.resize(before + want, 0);
        let got = file.read_at(at, held.get_mut(before..).unwrap_or_default())?;
        held.truncate(before + got);
        at = at.saturating_add(u64::try_from(got).unwrap_or(0));
        let eof = got < want || end.is_some_and(|end| at >= end);
        let mut used = 0;
        while let Some(len) = stream.push(held.get(used..).unwrap_or_default(), eof) {
            let chunk = held.get(used..used + len).unwrap_or_default();
            let stored = tools.store(run, strongroom_repo::codec::Hint::Plain, chunk)?;
            collected.push(run, tools, stored)?;
            used += len;
        }
        held.drain(..used.min(held.len()));
        if eof {
            return Ok(end.is_none_or(|end| at >= end));
        }
    }
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
