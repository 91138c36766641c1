//! A big file, divided among all workers: holes, pieces of tensors, and parts of plain content or
//! of blocks whose cuts are the same as one worker alone would find. Units are taken in order, so
//! whoever waits for the unit before waits for somebody who is at work.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use strongroom_chunker::{
    LEAD,
    layout::{Layout, LayoutSegment, MAX_PAGES_PIECE, SegmentKind, TENSOR_PIECE},
};

use super::{
    Run,
    ancestor::Ancestor,
    content::{Collected, Tools, recognise},
    promise::Promise,
    region::{Region, to_usize},
    work::{SmallFile, dated, judged, node_of, open, report_change, stored},
};
use crate::{
    error::{Error, Result},
    format::{
        extents::{Content, Extent},
        tree::TreeEntry,
    },
    node::Node,
    observer::Action,
    source::read::{Extent as Extents, SourceFile},
};

/// Bytes of a unit.
const UNIT: u64 = 4 << 20;

/// A file that all workers store together.
pub(super) struct BigFile {
    file: SourceFile,
    is_device: bool,
    /// What the parent snapshot has at the same path.
    before: Option<TreeEntry>,
    path: Vec<u8>,
    node: Node,
    action: Action,
    plan: Plan,
    ancestor: Option<Arc<Ancestor>>,
    outcome: Mutex<Outcome>,
}

/// What is to be done with a file.
struct Plan {
    layout: Layout,
    units: Vec<Unit>,
    regions: Vec<Region>,
}

/// A part of the file that one worker stores.
struct Unit {
    range: Range<u64>,
    kind: UnitKind,
}

enum UnitKind {
    /// Nothing to read.
    Hole,
    /// Pieces of so many bytes of the `segment`th segment of the layout.
    Pieces { segment: usize, piece: u64 },
    /// The `nth` part of a region.
    Part { region: usize, nth: usize },
    /// Plain content that cannot be cut in parts.
    Stream,
}

struct Outcome {
    extents: Vec<Option<Vec<(Extent, u64)>>>,
    left: usize,
    /// The first unit at which the file turned out to end.
    ends_at: usize,
    failure: Option<Error>,
    promise: Option<Promise>,
}

/// What a worker owes the others: where it panics the file is lost, and whoever waits for its turn
/// in it learns so from the end of the run.
struct Debt<'a>(&'a BigFile);

impl Drop for Debt<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail_if(Err(Error::WorkerLost));
        }
    }
}

impl BigFile {
    /// Opens the file and plans its units. Where there is none, after a failure or of a file that
    /// is empty by now, the promise is kept at once.
    pub(super) fn open(run: &Run<'_>, small: SmallFile) -> Option<Self> {
        let SmallFile {
            entry,
            source_path,
            path,
            action,
            promise,
            before,
        } = small;
        run.observer.started(&path);
        let planned = open(run, &entry, &source_path).and_then(|file| {
            let plan = Plan::new(run, &file)?;
            Ok((file, plan))
        });
        let (file, plan) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                promise.keep(Err(error));
                return None;
            }
        };
        let ancestor = run.ancestor(before.as_ref(), plan.layout.segments());
        let node = node_of(run, &entry, &file, &source_path);
        let count = plan.units.len();
        if count == 0 {
            // Emptied since the walk saw it: there is no unit whose worker could say so.
            promise.keep(Ok(stored(node, 0, Content::Inline(Vec::new()), action, 0)));
            return None;
        }
        let outcome = Outcome {
            extents: (0..count).map(|_| None).collect(),
            left: count,
            ends_at: usize::MAX,
            failure: None,
            promise: Some(promise),
        };
        let outcome = Mutex::new(outcome);
        Some(Self {
            file,
            is_device: entry.is_device(),
            before,
            path: source_path,
            node,
            action,
            plan,
            ancestor,
            outcome,
        })
    }

    pub(super) fn unit_count(&self) -> usize {
        self.plan.units.len()
    }

    /// Stores a unit; whoever stores the last one keeps the promise.
    pub(super) fn store_unit(&self, run: &Run<'_>, tools: &mut Tools, number: usize) {
        let Some(unit) = self.plan.units.get(number) else {
            return;
        };
        let _debt = Debt(self);
        tools.ancestor.clone_from(&self.ancestor);
        let result = self.extents_of(run, tools, unit);
        tools.ancestor = None;
        let mut outcome = self.outcome();
        match result {
            Ok((extents, whole)) => {
                if !whole {
                    outcome.ends_at = outcome.ends_at.min(number);
                }
                if let Some(slot) = outcome.extents.get_mut(number) {
                    *slot = Some(extents);
                }
            }
            Err(error) => {
                outcome.failure.get_or_insert(error);
            }
        }
        outcome.left -= 1;
        if outcome.left == 0 {
            let result = self.assemble(run, tools, &mut outcome);
            if let Some(promise) = outcome.promise.take() {
                promise.keep(result);
            }
        }
    }

    /// Lets the file fail with an error that came up beside it.
    pub(super) fn fail_if(&self, result: Result<()>) {
        if let Err(error) = result {
            let mut outcome = self.outcome();
            if let Some(promise) = outcome.promise.take() {
                promise.keep(Err(error));
            }
        }
    }

    fn assemble(
        &self,
        run: &Run<'_>,
        tools: &mut Tools,
        outcome: &mut Outcome,
    ) -> Result<super::promise::Stored> {
        if let Some(error) = outcome.failure.take() {
            return Err(error);
        }
        let mut collected = Collected::default();
        let count = outcome.ends_at.saturating_add(1);
        for extents in outcome.extents.iter_mut().take(count) {
            for extent in extents.take().unwrap_or_default() {
                collected.push(run, tools, extent)?;
            }
        }
        let (len, added) = (collected.len, collected.added);
        let content = collected.finish(run, tools)?;
        report_change(run, &self.file, &self.path)?;
        let before = self.before.as_ref();
        let mut stored = stored(self.node.clone(), len, content, self.action, added);
        if self.is_device {
            stored = dated(run, before, stored);
        }
        Ok(judged(before, stored))
    }

    /// The extents of a unit, and whether the file went on to the unit's end.
    fn extents_of(
        &self,
        run: &Run<'_>,
        tools: &mut Tools,
        unit: &Unit,
    ) -> Result<(Vec<(Extent, u64)>, bool)> {
        let len = unit.range.end - unit.range.start;
        match unit.kind {
            UnitKind::Hole => {
                run.observer.advanced(len);
                Ok((vec![(Extent::Hole { len }, 0)], true))
            }
            UnitKind::Pieces { segment, piece } => match self.plan.layout.segments().get(segment) {
                Some(segment) => self.pieces(run, tools, unit, (segment, piece)),
                None => Err(Error::WorkerLost),
            },
            UnitKind::Part { region, nth } => match self.plan.regions.get(region) {
                Some(region) => self.part(run, tools, unit, region, nth),
                None => Err(Error::WorkerLost),
            },
            UnitKind::Stream => self.stream(run, tools, unit),
        }
    }

    fn pieces(
        &self,
        run: &Run<'_>,
        tools: &mut Tools,
        unit: &Unit,
        (segment, piece): (&LayoutSegment, u64),
    ) -> Result<(Vec<(Extent, u64)>, bool)> {
        let mut buffer = std::mem::take(&mut tools.buffer);
        buffer.resize(to_usize(unit.range.end - unit.range.start), 0);
        let got = self.file.read_at(unit.range.start, &mut buffer)?;
        let whole = got == buffer.len();
        buffer.truncate(got);
        let mut extents = Vec::new();
        let mut rest = buffer.as_slice();
        let mut at = unit.range.start;
        while !rest.is_empty() {
            // Pieces are counted from the segment's start, wherever this unit begins.
            let len = piece - (at - segment.range.start) % piece;
            let (chunk, tail) = rest.split_at(to_usize(len).min(rest.len()));
            extents.push(tools.store(run, Some(segment), at, chunk)?);
            at += u64::try_from(chunk.len()).unwrap_or(0);
            rest = tail;
        }
        tools.buffer = buffer;
        Ok((extents, whole))
    }

    fn stream(
        &self,
        run: &Run<'_>,
        tools: &mut Tools,
        unit: &Unit,
    ) -> Result<(Vec<(Extent, u64)>, bool)> {
        let mut extents = Vec::new();
        let whole = tools.store_streamed(
            run,
            &mut |offset, buffer| self.file.read_at(offset, buffer),
            (unit.range.start, Some(unit.range.end)),
            &mut |_, stored| {
                extents.push(stored);
                Ok(())
            },
        )?;
        Ok((extents, whole))
    }

    fn part(
        &self,
        run: &Run<'_>,
        tools: &mut Tools,
        unit: &Unit,
        region: &Region,
        nth: usize,
    ) -> Result<(Vec<(Extent, u64)>, bool)> {
        let start = unit.range.start;
        let lead = match region.grid {
            None => to_usize(start - region.range.start).min(LEAD),
            Some(_) => 0,
        };
        let mut buffer = std::mem::take(&mut tools.buffer);
        let len = to_usize(unit.range.end - start);
        buffer.resize(lead + len, 0);
        let from = start - u64::try_from(lead).unwrap_or(0);
        let read = self.file.read_at(from, &mut buffer);
        let got = match read {
            Ok(got) => got.saturating_sub(lead),
            Err(error) => {
                region.end();
                return Err(error);
            }
        };
        let whole = got == len;
        buffer.truncate(lead + got);
        let (lead, part) = buffer.split_at(lead.min(buffer.len()));
        let found = region.look(run, lead, part, start);
        let mut turn = region.wait_for(run, nth)?;
        if turn.has_ended() {
            tools.buffer = buffer;
            return Ok((Vec::new(), false));
        }
        let is_last = !whole || unit.range.end == region.range.end;
        let chunks = turn.pass(&found, start, part, is_last);
        region.leave(turn);
        let mut extents = Vec::new();
        let mut at = chunks.origin(start);
        for chunk in chunks.over(part) {
            extents.push(tools.store(run, None, at, &chunk)?);
            at += u64::try_from(chunk.len()).unwrap_or(0);
        }
        tools.buffer = buffer;
        Ok((extents, whole))
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// Divides a file into units, in the order of the file.
    fn new(run: &Run<'_>, file: &SourceFile) -> Result<Self> {
        let size = file.content_stat().size;
        let layout = recognise(size, &mut |offset, buffer| file.read_at(offset, buffer))?;
        let (mut units, mut regions) = (Vec::new(), Vec::new());
        for extent in file.extents() {
            let data = match extent? {
                Extents::Data(range) => range,
                Extents::Hole(range) => {
                    let kind = UnitKind::Hole;
                    units.push(Unit { range, kind });
                    continue;
                }
                Extents::Unsized => continue,
            };
            let segments = layout.segments();
            let first = segments.partition_point(|segment| segment.range.end <= data.start);
            for (number, segment) in segments.iter().enumerate().skip(first) {
                let start = segment.range.start.max(data.start);
                let end = segment.range.end.min(data.end);
                if start >= end {
                    break;
                }
                let range = start..end;
                if let Some(piece) = segment.piece() {
                    let segment_start = segment.range.start;
                    let segment = number;
                    let kind = |_| UnitKind::Pieces { segment, piece };
                    push_units(&mut units, range, segment_start, kind);
                    continue;
                }
                match segment.kind {
                    SegmentKind::Plain if !run.chunker.segmentable() => {
                        let kind = UnitKind::Stream;
                        units.push(Unit { range, kind });
                    }
                    SegmentKind::Blocks { grid } => {
                        let region = regions.len();
                        regions.push(Region::new(run, range.clone(), Some(grid)));
                        let kind = |nth| UnitKind::Part { region, nth };
                        push_units(&mut units, range, 0, kind);
                    }
                    _ => {
                        let region = regions.len();
                        regions.push(Region::new(run, range.clone(), None));
                        let kind = |nth| UnitKind::Part { region, nth };
                        push_units(&mut units, range, start, kind);
                    }
                }
            }
        }
        Ok(Self {
            layout,
            units,
            regions,
        })
    }
}

/// Divides a range at every [`UNIT`] bytes, counted from `origin`.
fn push_units(
    units: &mut Vec<Unit>,
    range: Range<u64>,
    origin: u64,
    kind: impl Fn(usize) -> UnitKind,
) {
    let (mut start, mut nth) = (range.start, 0);
    while start < range.end {
        let end = origin + ((start - origin) / UNIT + 1) * UNIT;
        let end = end.min(range.end);
        let (range, kind) = (start..end, kind(nth));
        units.push(Unit { range, kind });
        (start, nth) = (end, nth + 1);
    }
}

const _: () = assert!(UNIT.is_multiple_of(TENSOR_PIECE) && UNIT.is_multiple_of(MAX_PAGES_PIECE));
const _: () = assert!(
    UNIT.is_multiple_of(64 << 10),
    "units of blocks end on every grid"
);

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        path::PathBuf,
        sync::atomic::AtomicBool,
    };

    use strongroom_repo::backend::MemBackend;

    use crate::{
        archive::{BackupOptions, backup, visit::BIG_FILE},
        fixture::create,
        observer::Observer,
    };

    /// Empties a file between the walk and its opening.
    struct Emptying(PathBuf);

    impl Observer for Emptying {
        fn started(&self, _path: &[u8]) {
            let file = OpenOptions::new().write(true).open(&self.0).unwrap();
            file.set_len(0).unwrap();
        }
    }

    #[test]
    fn a_big_file_that_is_emptied_before_it_is_read_does_not_end_the_backup() {
        let from = tempfile::tempdir().unwrap();
        let path = from.path().join("log");
        File::create(&path).unwrap().set_len(BIG_FILE).unwrap();
        let options = BackupOptions {
            workers: 2,
            ..BackupOptions::new(from.path().to_path_buf())
        };
        let repo = create(&MemBackend::new());
        let report = backup(&repo, &options, &Emptying(path), &AtomicBool::new(false)).unwrap();
        assert!(report.snapshot.is_some());
        let summary = report.summary;
        assert_eq!((summary.total_files, summary.total_bytes), (1, 0));
    }
}
