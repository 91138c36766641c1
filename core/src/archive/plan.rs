//! A big file, divided among all workers: holes, pieces of tensors, and segments of plain content
//! whose cuts are the same as one worker alone would find. Units are taken in order, so whoever
//! waits for the unit before waits for somebody who is at work.

use std::{
    ops::Range,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use strongroom_chunker::{
    LEAD, Selector,
    layout::{Dtype, Layout, SegmentKind, TENSOR_PIECE},
};
use strongroom_repo::codec::Hint;

use super::{
    Run,
    content::{Collected, Tools, hint, recognise},
    promise::Promise,
    work::{SmallFile, node_of, report_change, stored},
};
use crate::{
    error::{Error, Result},
    format::extents::{Content, Extent},
    node::Node,
    observer::Action,
    source::read::{Extent as Found, SourceFile},
};

/// Bytes of a unit.
const UNIT: u64 = 4 << 20;

/// A file that all workers store together.
pub(super) struct BigFile {
    file: SourceFile,
    path: Vec<u8>,
    node: Node,
    action: Action,
    units: Vec<Unit>,
    regions: Vec<Region>,
    outcome: Mutex<Outcome>,
}

/// A part of the file that one worker stores.
struct Unit {
    range: Range<u64>,
    kind: UnitKind,
}

enum UnitKind {
    /// Nothing to read.
    Hole,
    /// Pieces of a tensor that starts at `start`.
    Tensor { start: u64, dtype: Dtype },
    /// The `nth` segment of a region of plain content.
    Plain { region: usize, nth: usize },
}

/// A run of plain content, cut as a whole.
struct Region {
    range: Range<u64>,
    turn: Mutex<Turn>,
    passed: Condvar,
}

/// What goes from segment to segment.
struct Turn {
    next: usize,
    selector: Selector,
    /// Bytes behind the last cut.
    tail: Vec<u8>,
    /// The file ended, or a segment failed: nothing comes after.
    ended: bool,
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
        } = small;
        run.observer.started(&path);
        let planned = SourceFile::open(&entry, &source_path).and_then(|file| {
            let (units, regions) = plan(run, &file)?;
            Ok((file, units, regions))
        });
        let (file, units, regions) = match planned {
            Ok(planned) => planned,
            Err(error) => {
                promise.keep(Err(error));
                return None;
            }
        };
        let node = node_of(run, &entry, &file, &source_path);
        let count = units.len();
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
            path: source_path,
            node,
            action,
            units,
            regions,
            outcome,
        })
    }

    pub(super) fn unit_count(&self) -> usize {
        self.units.len()
    }

    /// Stores a unit; whoever stores the last one keeps the promise.
    pub(super) fn store_unit(&self, run: &Run<'_>, tools: &mut Tools, number: usize) {
        let Some(unit) = self.units.get(number) else {
            return;
        };
        let _debt = Debt(self);
        let result = self.extents_of(run, tools, unit);
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
        Ok(stored(self.node.clone(), len, content, self.action, added))
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
            UnitKind::Tensor { start, dtype } => self.tensor(run, tools, unit, start, dtype),
            UnitKind::Plain { region, nth } => match self.regions.get(region) {
                Some(region) => self.plain(run, tools, unit, region, nth),
                None => Err(Error::WorkerLost),
            },
        }
    }

    fn tensor(
        &self,
        run: &Run<'_>,
        tools: &mut Tools,
        unit: &Unit,
        start: u64,
        dtype: Dtype,
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
            // Pieces are counted from the tensor's start, wherever this unit begins.
            let piece = TENSOR_PIECE - (at - start) % TENSOR_PIECE;
            let (chunk, tail) = rest.split_at(to_usize(piece).min(rest.len()));
            extents.push(tools.store(run, hint(dtype, at - start), chunk)?);
            at += u64::try_from(chunk.len()).unwrap_or(0);
            rest = tail;
        }
        tools.buffer = buffer;
        Ok((extents, whole))
    }

    fn plain(
        &self,
        run: &Run<'_>,
        tools: &mut Tools,
        unit: &Unit,
        region: &Region,
        nth: usize,
    ) -> Result<(Vec<(Extent, u64)>, bool)> {
        let base = unit.range.start - region.range.start;
        let lead = to_usize(base).min(LEAD);
        let mut buffer = std::mem::take(&mut tools.buffer);
        let len = to_usize(unit.range.end - unit.range.start);
        buffer.resize(lead + len, 0);
        let from = unit.range.start - u64::try_from(lead).unwrap_or(0);
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
        let (lead, segment) = buffer.split_at(lead.min(buffer.len()));
        let candidates = run.chunker.scan(lead, segment, base);
        let mut turn = region.wait_for(run, nth)?;
        if turn.ended {
            tools.buffer = buffer;
            return Ok((Vec::new(), false));
        }
        let end = base + u64::try_from(segment.len()).unwrap_or(0);
        let is_last = !whole || unit.range.end == region.range.end;
        let mut cuts = Vec::new();
        turn.selector.feed(&candidates, end, is_last, &mut cuts);
        let mut first = std::mem::take(&mut turn.tail);
        let ends: Vec<usize> = cuts
            .iter()
            .map(|cut| to_usize(cut.saturating_sub(base)))
            .collect();
        let (head, behind) = match (ends.first(), ends.last()) {
            (Some(head), Some(last)) => (
                segment.get(..*head).unwrap_or_default(),
                segment.get(*last..).unwrap_or_default(),
            ),
            _ => (segment, &[][..]),
        };
        first.extend_from_slice(head);
        if ends.is_empty() {
            turn.tail = std::mem::take(&mut first);
        } else {
            turn.tail = behind.to_vec();
        }
        turn.next += 1;
        turn.ended = !whole;
        drop(turn);
        region.passed.notify_all();
        let mut extents = Vec::new();
        if !first.is_empty() {
            extents.push(tools.store(run, Hint::Plain, &first)?);
        }
        for pair in ends.windows(2) {
            let [start, end] = *pair else { continue };
            let chunk = segment.get(start..end).unwrap_or_default();
            extents.push(tools.store(run, Hint::Plain, chunk)?);
        }
        tools.buffer = buffer;
        Ok((extents, whole))
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Region {
    /// Waits until all segments before the `nth` have passed.
    fn wait_for(&self, run: &Run<'_>, nth: usize) -> Result<MutexGuard<'_, Turn>> {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        while turn.next != nth && !turn.ended {
            if run.is_over() {
                return Err(Error::Cancelled);
            }
            // The wait is bounded only so that the end of the run is noticed.
            let wait = self.passed.wait_timeout(turn, Duration::from_millis(50));
            turn = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(turn)
    }

    /// Lets nothing come after.
    fn end(&self) {
        self.turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ended = true;
        self.passed.notify_all();
    }
}

/// Divides a file into units, in the order of the file.
fn plan(run: &Run<'_>, file: &SourceFile) -> Result<(Vec<Unit>, Vec<Region>)> {
    let size = file.stat().size;
    let layout = recognise(size, &mut |offset, buffer| file.read_at(offset, buffer))?;
    let layout = layout.unwrap_or_else(|| Layout::plain(size));
    let mut units = Vec::new();
    let mut regions: Vec<Region> = Vec::new();
    for extent in file.extents() {
        let data = match extent? {
            Found::Data(range) => range,
            Found::Hole(range) => {
                units.push(Unit {
                    range,
                    kind: UnitKind::Hole,
                });
                continue;
            }
            Found::Unsized => continue,
        };
        for segment in layout.segments() {
            let start = segment.range.start.max(data.start);
            let end = segment.range.end.min(data.end);
            if start >= end {
                continue;
            }
            match segment.kind {
                SegmentKind::Tensor { dtype, .. } => {
                    push_tensor(&mut units, start..end, segment.range.start, dtype);
                }
                SegmentKind::Plain => {
                    let region = regions.len();
                    regions.push(Region {
                        range: start..end,
                        turn: Mutex::new(Turn {
                            next: 0,
                            selector: Selector::new(run.chunker.params()),
                            tail: Vec::new(),
                            ended: false,
                        }),
                        passed: Condvar::new(),
                    });
                    push_plain(&mut units, start..end, region);
                }
            }
        }
    }
    Ok((units, regions))
}

/// Units of whole pieces, counted from the tensor's start.
fn push_tensor(units: &mut Vec<Unit>, range: Range<u64>, tensor: u64, dtype: Dtype) {
    let mut start = range.start;
    while start < range.end {
        let end = tensor + ((start - tensor) / UNIT + 1) * UNIT;
        let end = end.min(range.end);
        units.push(Unit {
            range: start..end,
            kind: UnitKind::Tensor {
                start: tensor,
                dtype,
            },
        });
        start = end;
    }
}

fn push_plain(units: &mut Vec<Unit>, range: Range<u64>, region: usize) {
    let mut start = range.start;
    let mut nth = 0;
    while start < range.end {
        let end = (start + UNIT).min(range.end);
        units.push(Unit {
            range: start..end,
            kind: UnitKind::Plain { region, nth },
        });
        (start, nth) = (end, nth + 1);
    }
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

const _: () = assert!(UNIT.is_multiple_of(TENSOR_PIECE));

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        path::PathBuf,
        sync::atomic::AtomicBool,
    };

    use strongroom_repo::{backend::MemBackend, writer::WriterOptions};

    use crate::{
        archive::{About, BackupOptions, FIRST_CHECKPOINT, backup, visit::BIG_FILE},
        fixture::create,
        observer::Observer,
        source::{filter::FilterRules, meta::Accounts},
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
            targets: vec![b".".to_vec()],
            base: from.path().to_path_buf(),
            filter: FilterRules::default(),
            parent: None,
            about: About::default(),
            writer: WriterOptions::default(),
            workers: 2,
            accounts: Accounts::default(),
            with_atime: false,
            ignore_ctime: false,
            skip_if_unchanged: false,
            count_first: false,
            checkpoint: FIRST_CHECKPOINT,
        };
        let repo = create(&MemBackend::new());
        let report = backup(&repo, &options, &Emptying(path), &AtomicBool::new(false)).unwrap();
        assert!(report.snapshot.is_some());
        let summary = report.summary;
        assert_eq!((summary.total_files, summary.total_bytes), (1, 0));
    }
}
