//! Several tables as one: entries in the order of ids over all of them, and a merge that writes
//! one table from several while holding little of any. Entries of hidden packs are passed over.

use std::{collections::HashSet, io};

use super::{
    build::{Sink, TableWriter, renumber, sort_with_numbers},
    mask::Mask,
    row::{PackRow, Row},
    table::{Scan, Table},
};
use crate::{
    format::{DecodeError, cursor::to_usize},
    id::{BlobId, IndexId, RepoId},
};

/// A table and the packs of it that do not count.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) table: &'a Table,
    pub(super) hidden: &'a Mask,
}

/// An entry of one of several tables.
pub(super) struct Item {
    /// Number of the table among the sources.
    pub(super) source: usize,
    /// Number of the entry in that table.
    pub(super) entry: u32,
    /// The entry.
    pub(super) row: Row,
}

/// Damage that was met in one of the sources.
pub(super) struct SourceDamage {
    /// Number of the table among the sources.
    pub(super) source: usize,
    /// What is wrong with it.
    pub(super) error: DecodeError,
}

struct Cursor<'a> {
    scan: Scan<'a>,
    hidden: &'a Mask,
    head: Option<(u32, Row)>,
}

impl Cursor<'_> {
    fn advance(&mut self) -> Result<(), DecodeError> {
        loop {
            self.head = self.scan.next()?;
            match &self.head {
                Some((_, row)) if self.hidden.contains(row.pack) => {}
                _ => return Ok(()),
            }
        }
    }
}

/// The entries of all sources by id; equal ids in the order of the sources.
pub(super) struct Merged<'a> {
    cursors: Vec<Cursor<'a>>,
}

impl<'a> Merged<'a> {
    pub(super) fn new(sources: &[Source<'a>]) -> Result<Self, SourceDamage> {
        let mut cursors = Vec::with_capacity(sources.len());
        for (number, source) in sources.iter().enumerate() {
            let mut cursor = Cursor {
                scan: source.table.scan(),
                hidden: source.hidden,
                head: None,
            };
            cursor.advance().map_err(|error| SourceDamage {
                source: number,
                error,
            })?;
            cursors.push(cursor);
        }
        Ok(Self { cursors })
    }

    /// The next entry; `None` behind the last.
    pub(super) fn next(&mut self) -> Result<Option<Item>, SourceDamage> {
        let mut lowest: Option<(usize, &mut Cursor<'a>, BlobId)> = None;
        for (source, cursor) in self.cursors.iter_mut().enumerate() {
            let Some((_, Row { id, .. })) = cursor.head else {
                continue;
            };
            if lowest.as_ref().is_none_or(|(_, _, low)| id < *low) {
                lowest = Some((source, cursor, id));
            }
        }
        let Some((source, cursor, _)) = lowest else {
            return Ok(None);
        };
        let head = cursor.head;
        cursor
            .advance()
            .map_err(|error| SourceDamage { source, error })?;
        Ok(head.map(|(entry, row)| Item { source, entry, row }))
    }
}

/// Why a merge did not succeed.
pub(super) enum MergeError {
    /// A source is damaged.
    Source(SourceDamage),
    /// The result could not be written.
    Write(io::Error),
}

impl From<SourceDamage> for MergeError {
    fn from(damage: SourceDamage) -> Self {
        Self::Source(damage)
    }
}

impl From<io::Error> for MergeError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

/// What a merged table will hold: made from the pack rows alone.
pub(super) struct MergePlan {
    covered: Vec<IndexId>,
    packs: Vec<PackRow>,
    /// Per source: packs that are not taken over.
    left_out: Vec<Mask>,
    /// Per source: the new number of each pack.
    numbers: Vec<Vec<u32>>,
}

impl MergePlan {
    /// A plan for all that index objects in `keep` say in any of `tables`. An index object that
    /// two tables cover is taken from the first.
    pub(super) fn new(
        tables: &[&Table],
        keep: &dyn Fn(&IndexId) -> bool,
    ) -> Result<Self, SourceDamage> {
        let mut plan = Self {
            covered: Vec::new(),
            packs: Vec::new(),
            left_out: Vec::new(),
            numbers: Vec::new(),
        };
        let mut origins = Vec::new();
        let mut seen = HashSet::new();
        for (source, table) in tables.iter().enumerate() {
            // Per index object of this table: its number in the merged one, if it is taken.
            let taken: Vec<Option<u32>> = table
                .covered()
                .map(|id| {
                    let fresh = keep(&id) && seen.insert(id);
                    fresh.then(|| plan.cover(id))
                })
                .collect();
            let mut left_out = Mask::new();
            for number in 0..table.counts().packs {
                let mut pack = table.pack(number).ok_or(SourceDamage {
                    source,
                    error: DecodeError::Malformed {
                        what: "index table",
                    },
                })?;
                match taken.get(to_usize(pack.index)).copied().flatten() {
                    Some(index) => {
                        pack.index = index;
                        plan.packs.push(pack);
                        origins.push((source, number));
                    }
                    None => {
                        left_out.insert(number);
                    }
                }
            }
            plan.left_out.push(left_out);
            plan.numbers.push(vec![0; to_usize(table.counts().packs)]);
        }
        plan.sort(&origins);
        Ok(plan)
    }

    fn cover(&mut self, id: IndexId) -> u32 {
        self.covered.push(id);
        // More than 2^32 ids of 32 bytes are in no memory.
        u32::try_from(self.covered.len() - 1).unwrap_or(u32::MAX)
    }

    fn sort(&mut self, origins: &[(usize, u32)]) {
        let new_numbers = sort_with_numbers(&mut self.covered, |id| *id);
        for pack in &mut self.packs {
            renumber(&mut pack.index, &new_numbers);
        }
        let new_numbers = sort_with_numbers(&mut self.packs, |pack| (pack.id, pack.index));
        for ((source, old), new) in origins.iter().zip(new_numbers) {
            let numbers = self.numbers.get_mut(*source);
            if let Some(number) = numbers.and_then(|numbers| numbers.get_mut(to_usize(*old))) {
                *number = new;
            }
        }
    }

    /// The index objects that the merged table covers.
    pub(super) fn covered(&self) -> &[IndexId] {
        &self.covered
    }

    /// Writes the merged table; `tables` are those of the plan.
    pub(super) fn write(
        mut self,
        tables: &[&Table],
        repo: RepoId,
        sink: Sink,
    ) -> Result<Sink, MergeError> {
        let mut writer = TableWriter::new(sink, repo, &self.covered, &mut self.packs)?;
        let sources: Vec<Source<'_>> = tables
            .iter()
            .zip(&self.left_out)
            .map(|(table, hidden)| Source { table, hidden })
            .collect();
        let mut merged = Merged::new(&sources)?;
        while let Some(Item {
            source,
            entry,
            mut row,
        }) = merged.next()?
        {
            if let Some(numbers) = self.numbers.get(source) {
                renumber(&mut row.pack, numbers);
            }
            let base = match tables.get(source).filter(|_| row.has_base) {
                Some(table) => Some(
                    table
                        .base(entry)
                        .map_err(|error| SourceDamage { source, error })?,
                ),
                None => None,
            };
            writer.push(&row, base.as_ref())?;
        }
        Ok(writer.finish()?)
    }
}
