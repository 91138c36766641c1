//! Making tables. [`TableWriter`] writes one from entries that come in order, to a file or to
//! memory, holding no more of it than the order section and the filter; [`IndexBuilder`] collects
//! index objects and sorts them. Nothing here chooses file names or renames anything.

use std::{collections::HashSet, fs::File, io, os::unix::fs::FileExt};

use xxhash_rust::xxh3::xxh3_64;

use super::{
    IndexError,
    filter::FilterBuilder,
    layout::{BLOCK, Counts, HEADER_LEN, Layout, MAX_ENTRIES, block_sum},
    row::{PackRow, Row},
    table::{Bytes, Table},
};
use crate::{
    format::{cursor::to_usize, index::IndexBody},
    id::{BlobId, IndexId, PackId, RepoId},
};

/// Bytes that a section collects before it writes.
const CHUNK: usize = 256 << 10;

/// Where a table goes.
pub(super) enum Sink {
    /// A new, empty file.
    File(File),
    /// Memory.
    Memory(Vec<u8>),
}

impl Sink {
    fn put(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, at),
            Self::Memory(out) => {
                let start = usize::try_from(at).map_err(|_| wrong("too large for memory"))?;
                let end = start + bytes.len();
                if out.len() < end {
                    out.resize(end, 0);
                }
                if let Some(place) = out.get_mut(start..end) {
                    place.copy_from_slice(bytes);
                }
                Ok(())
            }
        }
    }

    /// The bytes of a finished table.
    pub(super) fn into_bytes(self) -> io::Result<Bytes> {
        match self {
            Self::File(file) => Bytes::map(file),
            Self::Memory(bytes) => Ok(Bytes::Owned(bytes)),
        }
    }
}

/// Something that the format of a table cannot hold.
fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// One section being written: whole blocks, each with its checksum.
struct Section {
    at: u64,
    pending: Vec<u8>,
    sums: Vec<u8>,
}

impl Section {
    const fn new(at: u64) -> Self {
        Self {
            at,
            pending: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// Writes what is pending once that is worth a call.
    fn flow(&mut self, sink: &mut Sink) -> io::Result<()> {
        if self.pending.len() < CHUNK {
            return Ok(());
        }
        let rest = self.pending.len() % HEADER_LEN;
        let rest = self.pending.split_off(self.pending.len() - rest);
        self.write(sink)?;
        self.pending = rest;
        Ok(())
    }

    /// Fills the last block up with zeros and writes it.
    fn finish(&mut self, sink: &mut Sink) -> io::Result<()> {
        let padded = self.pending.len().next_multiple_of(HEADER_LEN);
        self.pending.resize(padded, 0);
        self.write(sink)
    }

    fn write(&mut self, sink: &mut Sink) -> io::Result<()> {
        let first = self.at / BLOCK - 1;
        for (block, number) in self.pending.chunks(HEADER_LEN).zip(first..) {
            self.sums
                .extend_from_slice(&block_sum(block, number).to_le_bytes());
        }
        sink.put(self.at, &self.pending)?;
        self.at += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Writes a section that is there as a whole.
    fn write_all(at: u64, bytes: Vec<u8>, sink: &mut Sink) -> io::Result<Vec<u8>> {
        let mut section = Self::new(at);
        section.pending = bytes;
        section.finish(sink)?;
        Ok(section.sums)
    }
}

/// Writes a table from entries in order.
pub(super) struct TableWriter {
    sink: Sink,
    repo: RepoId,
    counts: Counts,
    /// Sums of the sections in front of the fan-out.
    front_sums: Vec<u8>,
    fan: Vec<u32>,
    entries: Section,
    tails: Section,
    /// Per place of the order section: offset and entry number; each pack's stretch is sorted at
    /// the end.
    order: Vec<(u32, u32)>,
    /// Per pack: its stretch, and how much of it is filled.
    stretches: Vec<(u32, u32, u32)>,
    filter: FilterBuilder,
    bases: Vec<u8>,
    written: u32,
    last: BlobId,
}

impl TableWriter {
    /// Starts a table. `covered` and `packs` are ascending; the packs' `index` are numbers in
    /// `covered`, `blobs` are right, and `first` is set here.
    pub(super) fn new(
        mut sink: Sink,
        repo: RepoId,
        covered: &[IndexId],
        packs: &mut [PackRow],
    ) -> io::Result<Self> {
        let entries: u64 = packs.iter().map(|pack| u64::from(pack.blobs)).sum();
        if entries > MAX_ENTRIES {
            return Err(wrong("too many entries for one index table"));
        }
        let number = |len| u32::try_from(len).map_err(|_| wrong("too many packs for one table"));
        let counts = Counts {
            entries: u32::try_from(entries).map_err(|_| wrong("too many entries"))?,
            packs: number(packs.len())?,
            covered: number(covered.len())?,
            bases: 0,
            duplicates: !packs.is_sorted_by(|one, next| one.id < next.id),
        };
        let layout = Layout::of(&counts);
        let ids = covered.iter().flat_map(|id| *id.as_bytes()).collect();
        let mut front_sums = Section::write_all(layout.covered, ids, &mut sink)?;
        let mut rows = Vec::new();
        let mut stretches = Vec::with_capacity(packs.len());
        let mut first = 0;
        for pack in packs {
            pack.first = first;
            stretches.push((first, pack.blobs, 0));
            first += pack.blobs;
            pack.put(&mut rows);
        }
        front_sums.extend_from_slice(&Section::write_all(layout.packs, rows, &mut sink)?);
        Ok(Self {
            sink,
            repo,
            front_sums,
            fan: vec![0; (1 << counts.fan_bits()) + 1],
            entries: Section::new(layout.entries),
            tails: Section::new(layout.tails),
            order: vec![(0, 0); to_usize(counts.entries)],
            stretches,
            filter: FilterBuilder::new(counts.entries),
            bases: Vec::new(),
            written: 0,
            last: BlobId::new([0; 32]),
            counts,
        })
    }

    /// Adds the next entry; ids never descend.
    pub(super) fn push(&mut self, row: &Row, base: Option<&BlobId>) -> io::Result<()> {
        let misfit = || wrong("entries do not fit their packs");
        let stretch = self.stretches.get_mut(to_usize(row.pack));
        let (first, blobs, filled) = stretch.ok_or_else(misfit)?;
        if filled >= blobs || row.id < self.last || row.has_base != base.is_some() {
            return Err(misfit());
        }
        let place = self.order.get_mut(to_usize(*first + *filled));
        *place.ok_or_else(misfit)? = (row.offset, self.written);
        *filled += 1;
        let bucket = to_usize(self.counts.bucket(&row.id)) + 1;
        *self.fan.get_mut(bucket).ok_or_else(misfit)? += 1;
        self.filter.add(&row.id);
        if let Some(base) = base {
            self.bases.extend_from_slice(&self.written.to_le_bytes());
            self.bases.extend_from_slice(base.as_bytes());
            self.counts.bases += 1;
        }
        row.put(&mut self.entries.pending, &mut self.tails.pending);
        self.entries.flow(&mut self.sink)?;
        self.tails.flow(&mut self.sink)?;
        self.written += 1;
        self.last = row.id;
        Ok(())
    }

    /// Writes the rest.
    pub(super) fn finish(mut self) -> io::Result<Sink> {
        if self.written != self.counts.entries {
            return Err(wrong("entries are missing"));
        }
        let layout = Layout::of(&self.counts);
        let sink = &mut self.sink;
        let mut sums = self.front_sums;
        let mut before = 0;
        let mut fan = Vec::with_capacity(self.fan.len() * 4);
        for count in &self.fan {
            before += count;
            fan.extend_from_slice(&before.to_le_bytes());
        }
        sums.extend_from_slice(&Section::write_all(layout.fan, fan, sink)?);
        for mut section in [self.entries, self.tails] {
            section.finish(sink)?;
            sums.extend_from_slice(&section.sums);
        }
        let mut order = Section::new(layout.order);
        for (first, blobs, _) in self.stretches {
            let stretch = to_usize(first)..to_usize(first + blobs);
            let stretch = self.order.get_mut(stretch).unwrap_or_default();
            stretch.sort_unstable();
            for (_, entry) in stretch {
                order.pending.extend_from_slice(&entry.to_le_bytes());
            }
            order.flow(sink)?;
        }
        order.finish(sink)?;
        sums.extend_from_slice(&order.sums);
        let filter = self.filter.bytes().to_vec();
        sums.extend_from_slice(&Section::write_all(layout.filter, filter, sink)?);
        sums.extend_from_slice(&Section::write_all(layout.bases, self.bases, sink)?);
        sink.put(layout.sums, &sums)?;
        sink.put(0, &self.counts.encode(self.repo, xxh3_64(&sums)))?;
        Ok(self.sink)
    }
}

/// Collects index objects for one table.
#[derive(Default)]
pub(super) struct IndexBuilder {
    covered: Vec<IndexId>,
    known: HashSet<IndexId>,
    packs: Vec<PackRow>,
    /// Rows, and the place of the base in `bases` where there is one.
    rows: Vec<(Row, u32)>,
    bases: Vec<BlobId>,
}

impl IndexBuilder {
    /// Adds what an index object says. A pack that it names twice counts once.
    pub(super) fn add(&mut self, object: IndexId, body: &IndexBody) -> io::Result<()> {
        let too_many = |_| wrong("too many entries for one index table");
        if !self.known.insert(object) {
            return Ok(());
        }
        let index = u32::try_from(self.covered.len()).map_err(too_many)?;
        self.covered.push(object);
        let mut seen = HashSet::<PackId>::new();
        for group in &body.packs {
            if !seen.insert(group.id) {
                continue;
            }
            let pack = u32::try_from(self.packs.len()).map_err(too_many)?;
            for entry in &group.entries {
                let row = Row::new(pack, entry).ok_or_else(|| wrong("segment number too high"))?;
                let base = u32::try_from(self.bases.len()).map_err(too_many)?;
                self.bases.extend(entry.base);
                self.rows.push((row, base));
            }
            self.packs.push(PackRow {
                id: group.id,
                len: group.len,
                header: group.header.clone(),
                index,
                first: 0,
                blobs: u32::try_from(group.entries.len()).map_err(too_many)?,
            });
        }
        Ok(())
    }

    /// How many entries were added.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no index object was added.
    pub(super) fn is_empty(&self) -> bool {
        self.covered.is_empty()
    }

    /// The index objects that were added.
    pub(super) fn covered(&self) -> &[IndexId] {
        &self.covered
    }

    /// Sorts and writes the table. The builder stays as it was in all that matters, so that this
    /// can be tried again with another sink.
    pub(super) fn write(&mut self, repo: RepoId, sink: Sink) -> io::Result<Sink> {
        let new_numbers = sort_with_numbers(&mut self.covered, |id| *id);
        for pack in &mut self.packs {
            renumber(&mut pack.index, &new_numbers);
        }
        let new_numbers = sort_with_numbers(&mut self.packs, |pack| (pack.id, pack.index));
        for (row, _) in &mut self.rows {
            renumber(&mut row.pack, &new_numbers);
        }
        self.rows
            .sort_unstable_by_key(|(row, base)| (row.id, row.pack, row.offset, *base));
        let mut writer = TableWriter::new(sink, repo, &self.covered, &mut self.packs)?;
        for (row, base) in &self.rows {
            let base = self.bases.get(to_usize(*base)).filter(|_| row.has_base);
            writer.push(row, base)?;
        }
        writer.finish()
    }

    /// Makes the table in memory.
    pub(super) fn table_in_memory(&mut self, repo: RepoId) -> Result<Table, IndexError> {
        let sink = self.write(repo, Sink::Memory(Vec::new()));
        open_in_memory(sink, repo)
    }
}

/// Opens a table that was written to memory.
pub(super) fn open_in_memory(sink: io::Result<Sink>, repo: RepoId) -> Result<Table, IndexError> {
    let bytes = sink.and_then(Sink::into_bytes).map_err(IndexError::Build)?;
    Table::open(bytes, repo, None).map_err(IndexError::Damaged)
}

/// Sorts by `key`; returns the new number of each old one.
pub(super) fn sort_with_numbers<T, K: Ord>(items: &mut Vec<T>, key: impl Fn(&T) -> K) -> Vec<u32> {
    let mut numbered: Vec<(usize, T)> = std::mem::take(items).into_iter().enumerate().collect();
    numbered.sort_by_key(|(_, item)| key(item));
    let mut new_numbers = vec![0; numbered.len()];
    for ((old, item), new) in numbered.into_iter().zip(0_u32..) {
        if let Some(number) = new_numbers.get_mut(old) {
            *number = new;
        }
        items.push(item);
    }
    new_numbers
}

/// Replaces an old number by the new one.
pub(super) fn renumber(number: &mut u32, new_numbers: &[u32]) {
    if let Some(new) = new_numbers.get(to_usize(*number)) {
        *number = *new;
    }
}
