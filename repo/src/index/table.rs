//! One immutable sorted table: what some index objects say, ordered for look-ups. Mapped from a
//! file of the local cache or held in memory; the bytes are the same, see `layout`.
//!
//! Header, sums, covered ids and packs are checked when the table is opened, every other block
//! when it is first touched: opening a table of ten million entries does not read it. No byte is
//! used before its block was checked. A block is read before it is looked at through the mapping:
//! a disk that fails answers a read with an error, and a look through a mapping with a signal. A
//! table is a function of the index objects that it covers and of nothing else: whether a pack
//! was swept is not its business.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use memmap2::{Advice, Mmap};
use xxhash_rust::xxh3::xxh3_64;

use super::{
    filter::{FILTER_BLOCK, Place, blocks_for},
    layout::{BASE_LEN, BLOCK, CHECKSUM, Counts, HEADER_LEN, Layout, MALFORMED, WHAT, block_sum},
    row::{ENTRY_LEN, PACK_LEN, PREFIX_LEN, PackRow, Row, TAIL_LEN},
};
use crate::{
    format::{DecodeError, cursor::to_usize},
    id::{BlobId, IndexId, PackId, RepoId},
};

/// Tables up to this many bytes are checked as a whole when they are opened, which takes a few
/// milliseconds: damage is then found while it can be mended without anybody noticing.
const EAGER_LEN: u64 = 64 << 20;
/// Bytes that are read at a time while checking.
const VERIFY_LEN: u64 = 1 << 20;
/// Rows that a scan reads at a time: whole blocks of entries and of tails.
const SCAN_ROWS: u32 = 4096;

/// The bytes of a table.
pub(super) enum Bytes {
    /// A file of the cache.
    Mapped {
        /// Its mapping.
        map: Mmap,
        /// The file itself, to read long stretches without growing the mapping.
        file: File,
    },
    /// Memory.
    Owned(Vec<u8>),
}

impl Bytes {
    /// Maps a table file of our own cache.
    #[expect(
        unsafe_code,
        reason = "a mapped file must not change: table files are made by this program under a \
                  private name, renamed into place whole, and never written or cut afterwards"
    )]
    pub(super) fn map(file: File) -> io::Result<Self> {
        // SAFETY: see the reason above; nothing else is meant to write to the cache folder.
        let map = unsafe { Mmap::map(&file) }?;
        // Look-ups jump about; what is read in order is not read through the mapping.
        map.advise(Advice::Random)?;
        Ok(Self::Mapped { map, file })
    }

    fn all(&self) -> &[u8] {
        match self {
            Self::Mapped { map, .. } => map,
            Self::Owned(bytes) => bytes,
        }
    }

    /// All there is from `at` on, read.
    fn tail(&self, at: u64) -> Result<Vec<u8>, DecodeError> {
        let len = (self.all().len() as u64).checked_sub(at).ok_or(MALFORMED)?;
        let mut out = vec![0; usize::try_from(len).map_err(|_| MALFORMED)?];
        self.copy(at, &mut out)?;
        Ok(out)
    }

    fn range(&self, at: u64, len: u64) -> Result<&[u8], DecodeError> {
        let start = usize::try_from(at).map_err(|_| MALFORMED)?;
        let len = usize::try_from(len).map_err(|_| MALFORMED)?;
        self.all()
            .get(start..)
            .and_then(|tail| tail.get(..len))
            .ok_or(DecodeError::Truncated { what: WHAT })
    }

    /// Copies a stretch; a mapped file is read, so that its pages do not count as this process's.
    fn copy(&self, at: u64, out: &mut [u8]) -> Result<(), DecodeError> {
        match self {
            Self::Mapped { file, .. } => file
                .read_exact_at(out, at)
                .map_err(|_| DecodeError::Truncated { what: WHAT }),
            Self::Owned(_) => {
                out.copy_from_slice(self.range(at, out.len() as u64)?);
                Ok(())
            }
        }
    }
}

/// An open table.
pub(super) struct Table {
    bytes: Bytes,
    counts: Counts,
    layout: Layout,
    /// The sums of the blocks, eight bytes each.
    sums: Vec<u8>,
    /// One bit a block: checked.
    checked: Vec<AtomicU64>,
    file: Option<PathBuf>,
}

impl Table {
    /// Opens a table of `repo`; `file` is where its bytes are from.
    pub(super) fn open(
        bytes: Bytes,
        repo: RepoId,
        file: Option<PathBuf>,
    ) -> Result<Self, DecodeError> {
        Self::open_checking(bytes, repo, file, EAGER_LEN)
    }

    /// As [`Table::open`], with the length up to which everything is checked at once.
    pub(super) fn open_checking(
        bytes: Bytes,
        repo: RepoId,
        file: Option<PathBuf>,
        eager_len: u64,
    ) -> Result<Self, DecodeError> {
        let mut header = [0; HEADER_LEN];
        bytes.copy(0, &mut header)?;
        let (counts, sum_of_sums) = Counts::decode(&header, repo)?;
        let layout = Layout::of(&counts);
        if layout.end != bytes.all().len() as u64 {
            return Err(MALFORMED);
        }
        let sums = bytes.tail(layout.sums)?;
        if xxh3_64(&sums) != sum_of_sums {
            return Err(CHECKSUM);
        }
        let words = ((layout.end - layout.sums) / 8).div_ceil(64);
        let words = usize::try_from(words).map_err(|_| MALFORMED)?;
        let mut checked = Vec::new();
        checked.resize_with(words, AtomicU64::default);
        let table = Self {
            bytes,
            counts,
            layout,
            sums,
            checked,
            file,
        };
        let eager = if layout.end <= eager_len {
            layout.sums
        } else {
            layout.fan
        };
        table.verify_up_to(eager)?;
        Ok(table)
    }

    /// Checks everything that was not checked yet.
    pub(super) fn verify(&self) -> Result<(), DecodeError> {
        self.verify_up_to(self.layout.sums)
    }

    /// Checks all blocks up to `end`, reading instead of mapping them.
    fn verify_up_to(&self, end: u64) -> Result<(), DecodeError> {
        let mut buffer = Vec::new();
        let mut at = self.layout.covered;
        while at < end {
            let len = (end - at).min(VERIFY_LEN);
            self.copy_blocks(at, len, &mut buffer)?;
            for block in at / BLOCK..(at + len).div_ceil(BLOCK) {
                let (word, bit) = self.checked_bit(block)?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
            at += len;
        }
        Ok(())
    }

    /// The counts.
    pub(super) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The file that the bytes are from.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The index objects that the table covers, ascending.
    pub(super) fn covered(&self) -> impl Iterator<Item = IndexId> {
        (0..self.counts.covered).filter_map(|number| self.covered_at(number).ok())
    }

    fn covered_at(&self, number: u32) -> Result<IndexId, DecodeError> {
        if number >= self.counts.covered {
            return Err(MALFORMED);
        }
        Ok(IndexId::new(*self.item(self.layout.covered, number)?))
    }

    /// A pack; `None` behind the last.
    pub(super) fn pack(&self, number: u32) -> Option<PackRow> {
        if number >= self.counts.packs {
            return None;
        }
        let row = PackRow::decode(self.item(self.layout.packs, number).ok()?).ok()?;
        let last = row.first.checked_add(row.blobs)?;
        (row.index < self.counts.covered && last <= self.counts.entries).then_some(row)
    }

    /// The index object that names a pack.
    pub(super) fn index_of(&self, row: &PackRow) -> Option<IndexId> {
        self.covered_at(row.index).ok()
    }

    /// The id of a pack.
    pub(super) fn pack_id(&self, number: u32) -> Option<PackId> {
        if number >= self.counts.packs {
            return None;
        }
        let row: &[u8; PACK_LEN] = self.item(self.layout.packs, number).ok()?;
        row.first_chunk().map(|id| PackId::new(*id))
    }

    /// The first pack from `from` on whose id is not below `id`.
    pub(super) fn seek_pack(&self, from: u32, id: &PackId) -> u32 {
        let (mut low, mut high) = (from, self.counts.packs);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.pack_id(middle).is_some_and(|found| found < *id) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Calls `each` with every entry of the blob. The search goes by the first half of the id;
    /// the second half, in a section of its own, confirms what it finds.
    pub(super) fn lookup(
        &self,
        id: &BlobId,
        each: &mut dyn FnMut(u32, Row),
    ) -> Result<(), DecodeError> {
        let place = Place::of(id, blocks_for(self.counts.entries));
        let filter: &[u8; FILTER_BLOCK] = self.item(self.layout.filter, place.block)?;
        if !place.is_in(filter) {
            return Ok(());
        }
        let bucket = self.counts.bucket(id);
        let start = self.fan(bucket)?;
        let end = self.fan(bucket + 1)?;
        let count = end.checked_sub(start).ok_or(MALFORMED)?;
        if end > self.counts.entries {
            return Err(MALFORMED);
        }
        let at = self.layout.entries + u64::from(start) * ENTRY_LEN as u64;
        let bytes = self.read(at, u64::from(count) * ENTRY_LEN as u64)?;
        let (rows, _) = bytes.as_chunks::<ENTRY_LEN>();
        let prefix = id.as_bytes().first_chunk::<PREFIX_LEN>();
        let below = rows.partition_point(|row| row.first_chunk() < prefix);
        for (number, row) in (start..).zip(rows).skip(below) {
            if row.first_chunk() != prefix {
                break;
            }
            let row = self.row(row, self.item(self.layout.tails, number)?)?;
            if row.id == *id {
                each(number, row);
            }
        }
        Ok(())
    }

    /// An entry.
    pub(super) fn entry(&self, number: u32) -> Result<Row, DecodeError> {
        if number >= self.counts.entries {
            return Err(MALFORMED);
        }
        self.row(
            self.item(self.layout.entries, number)?,
            self.item(self.layout.tails, number)?,
        )
    }

    fn row(&self, entry: &[u8; ENTRY_LEN], tail: &[u8; TAIL_LEN]) -> Result<Row, DecodeError> {
        let row = Row::decode(entry, tail)?;
        if row.pack < self.counts.packs {
            Ok(row)
        } else {
            Err(MALFORMED)
        }
    }

    /// The base of an entry that has one.
    pub(super) fn base(&self, entry: u32) -> Result<BlobId, DecodeError> {
        let (mut low, mut high) = (0, self.counts.bases);
        while low < high {
            let middle = low + (high - low) / 2;
            let base: &[u8; BASE_LEN] = self.item(self.layout.bases, middle)?;
            let (number, id) = base.split_first_chunk().ok_or(MALFORMED)?;
            let number = u32::from_le_bytes(*number);
            match number.cmp(&entry) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => {
                    return id.first_chunk().map(|id| BlobId::new(*id)).ok_or(MALFORMED);
                }
            }
        }
        Err(MALFORMED)
    }

    /// The entry numbers of a pack, by offset.
    pub(super) fn order_of(&self, pack: &PackRow) -> Result<Vec<u32>, DecodeError> {
        let at = self.layout.order + u64::from(pack.first) * 4;
        let (numbers, _) = self.read(at, u64::from(pack.blobs) * 4)?.as_chunks();
        Ok(numbers.iter().copied().map(u32::from_le_bytes).collect())
    }

    fn fan(&self, bucket: u32) -> Result<u32, DecodeError> {
        self.item(self.layout.fan, bucket)
            .copied()
            .map(u32::from_le_bytes)
    }

    /// Item `number` of the section at `start`; the caller knows that it is there.
    fn item<const N: usize>(&self, start: u64, number: u32) -> Result<&[u8; N], DecodeError> {
        let at = start + u64::from(number) * N as u64;
        self.read(at, N as u64)?.first_chunk().ok_or(MALFORMED)
    }

    /// Bytes behind the header, checked.
    fn read(&self, at: u64, len: u64) -> Result<&[u8], DecodeError> {
        if len > 0 {
            for block in at / BLOCK..=(at + len - 1) / BLOCK {
                self.check(block)?;
            }
        }
        self.bytes.range(at, len)
    }

    fn check(&self, block: u64) -> Result<(), DecodeError> {
        let (word, bit) = self.checked_bit(block)?;
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let mut bytes = [0; HEADER_LEN];
        self.bytes.copy(block * BLOCK, &mut bytes)?;
        self.compare(&bytes, block - 1)?;
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// Where it is noted that a block was checked. Blocks count from the start of the file, their
    /// sums from the block behind the header.
    fn checked_bit(&self, block: u64) -> Result<(&AtomicU64, u64), DecodeError> {
        let number = block.checked_sub(1).ok_or(MALFORMED)?;
        let word = usize::try_from(number / 64).map_err(|_| MALFORMED)?;
        let word = self.checked.get(word).ok_or(MALFORMED)?;
        Ok((word, 1 << (number % 64)))
    }

    fn compare(&self, block: &[u8], number: u64) -> Result<(), DecodeError> {
        let number_in_sums = usize::try_from(number).map_err(|_| MALFORMED)?;
        let sum = self
            .sums
            .as_chunks()
            .0
            .get(number_in_sums)
            .ok_or(MALFORMED)?;
        if block_sum(block, number) == u64::from_le_bytes(*sum) {
            Ok(())
        } else {
            Err(CHECKSUM)
        }
    }

    /// Copies whole blocks that hold the `len` bytes from `at`, the start of a block, and checks
    /// them.
    fn copy_blocks(&self, at: u64, len: u64, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let len = usize::try_from(len.next_multiple_of(BLOCK)).map_err(|_| MALFORMED)?;
        out.resize(len, 0);
        self.bytes.copy(at, out)?;
        let first = (at / BLOCK).checked_sub(1).ok_or(MALFORMED)?;
        for (block, number) in out.chunks_exact(HEADER_LEN).zip(first..) {
            self.compare(block, number)?;
        }
        Ok(())
    }

    /// All entries, by id.
    pub(super) fn scan(&self) -> Scan<'_> {
        Scan {
            table: self,
            next: 0,
            batch_end: 0,
            entries: Vec::new(),
            tails: Vec::new(),
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("counts", &self.counts)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Reads a table from front to back with a small buffer.
pub(super) struct Scan<'a> {
    table: &'a Table,
    next: u32,
    batch_end: u32,
    entries: Vec<u8>,
    tails: Vec<u8>,
}

impl Scan<'_> {
    /// The next entry and its number; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Row)>, DecodeError> {
        let number = self.next;
        if number == self.batch_end && !self.fill()? {
            return Ok(None);
        }
        let at = to_usize(number % SCAN_ROWS);
        let entry = self.entries.as_chunks().0.get(at).ok_or(MALFORMED)?;
        let tail = self.tails.as_chunks().0.get(at).ok_or(MALFORMED)?;
        self.next += 1;
        Ok(Some((number, self.table.row(entry, tail)?)))
    }

    fn fill(&mut self) -> Result<bool, DecodeError> {
        let Table { counts, layout, .. } = self.table;
        let rows = (counts.entries - self.next).min(SCAN_ROWS);
        let (from, count) = (u64::from(self.next), u64::from(rows));
        let entries = layout.entries + from * ENTRY_LEN as u64;
        self.table
            .copy_blocks(entries, count * ENTRY_LEN as u64, &mut self.entries)?;
        let tails = layout.tails + from * TAIL_LEN as u64;
        self.table
            .copy_blocks(tails, count * TAIL_LEN as u64, &mut self.tails)?;
        self.batch_end += rows;
        Ok(rows > 0)
    }
}

const _: () = {
    assert!(BLOCK == HEADER_LEN as u64);
    assert!((SCAN_ROWS as usize * ENTRY_LEN).is_multiple_of(HEADER_LEN));
    assert!((SCAN_ROWS as usize * TAIL_LEN).is_multiple_of(HEADER_LEN));
    assert!(HEADER_LEN.is_multiple_of(FILTER_BLOCK));
};
