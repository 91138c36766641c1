//! Where blobs are: the merged view of all live index objects. Answers "is this blob known, and
//! where does it lie", and lists what packs hold. Entries of swept packs are never in it.
//!
//! An [`Index`] is a short list of immutable sorted tables (`table`), most of them mapped from
//! the local cache ([`cache`]), and per table a set of packs that do not count: swept, named by a
//! dead index object only, or named by another table already. Neither entries nor packs are held
//! in memory. Nothing here reads the repository; the cache is never trusted beyond its checksums,
//! and damage to it is an error ([`IndexError::DamagedCache`]), never a wrong answer.

mod build;
pub mod cache;
mod filter;
#[cfg(any(test, feature = "testing"))]
mod fuzz;
mod layout;
mod mask;
mod merge;
mod row;
#[cfg(any(test, feature = "testing"))]
pub mod synthetic;
mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::Arc,
};

pub use cache::IndexCache;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub use fuzz::fuzz_table;

use build::{IndexBuilder, Sink, open_in_memory};
use mask::Mask;
use merge::{MergeError, MergePlan, Merged, Source};
use row::{PackRow, Row};
use table::Table;

use crate::{
    crypto::SealHeader,
    format::{DecodeError, index::IndexBody, pack::BlobEntry},
    id::{BlobId, IndexId, PackId, RepoId},
};

/// Tables in memory beyond this number are made one.
const MAX_IN_MEMORY: usize = 8;
/// Tables in memory belong to this process alone and need no repository id.
const IN_MEMORY: RepoId = RepoId::new([0; RepoId::LEN]);

/// What can go wrong with the index, beside what goes wrong while loading index objects.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A file of the local cache is damaged. It is removed by then: opening the index again
    /// builds it anew.
    #[error("the local index cache {} was damaged and is removed; try again", file.display())]
    DamagedCache {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A table in memory does not hold what was put in.
    #[error("an index table in memory is damaged")]
    Damaged(#[source] DecodeError),
    /// A table could not be made.
    #[error("the index cannot be built")]
    Build(#[source] io::Error),
}

/// Number of a pack inside one [`Index`], until the next [`Index::add`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackNumber {
    part: usize,
    pack: u32,
}

/// What the index knows of a pack.
#[derive(Clone, Debug)]
pub struct PackInfo {
    /// Its number, for [`Index::entries_of`].
    pub number: PackNumber,
    /// The pack.
    pub id: PackId,
    /// Length of the pack object.
    pub len: u64,
    /// Its sealing header.
    pub header: SealHeader,
    /// The index object that says so.
    pub index: IndexId,
    /// How many blobs it holds.
    pub blobs: u32,
}

/// A copy of a blob.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The pack that holds it.
    pub pack: PackNumber,
    /// Where in the pack, and how to open it.
    pub entry: BlobEntry,
}

/// The merged view.
#[derive(Clone, Debug, Default)]
pub struct Index {
    parts: Vec<Part>,
    swept: HashSet<PackId>,
}

#[derive(Clone, Debug)]
struct Part {
    table: Arc<Table>,
    hidden: Mask,
}

impl Index {
    /// Adds what an index object says, but for packs in `swept`. A pack that is known already is
    /// passed over. Pack numbers from before mean nothing afterwards.
    ///
    /// # Errors
    /// [`IndexError::Build`] for more than a table can hold.
    pub fn add(
        &mut self,
        object: IndexId,
        body: &IndexBody,
        swept: &HashSet<PackId>,
    ) -> Result<(), IndexError> {
        let mut builder = IndexBuilder::default();
        builder.add(object, body).map_err(IndexError::Build)?;
        let table = builder.table_in_memory(IN_MEMORY)?;
        self.sweep(swept);
        self.attach(table, None);
        self.compact()
    }

    /// Hides packs: their entries are found no more.
    pub fn sweep(&mut self, swept: &HashSet<PackId>) {
        for Part { table, hidden } in &mut self.parts {
            hide_swept(table, swept, hidden);
        }
        self.swept.extend(swept);
    }

    /// A copy of the blob, one that is no delta where there is a choice.
    ///
    /// # Errors
    /// [`IndexError::DamagedCache`].
    pub fn find(&self, id: &BlobId) -> Result<Option<Found>, IndexError> {
        let mut best: Option<Found> = None;
        self.each_copy(id, &mut |found| {
            if best.is_none_or(|best| best.entry.base.is_some() && found.entry.base.is_none()) {
                best = Some(found);
            }
        })?;
        Ok(best)
    }

    /// All copies of the blob.
    ///
    /// # Errors
    /// [`IndexError::DamagedCache`].
    pub fn copies(&self, id: &BlobId) -> Result<Vec<Found>, IndexError> {
        let mut copies = Vec::new();
        self.each_copy(id, &mut |found| copies.push(found))?;
        Ok(copies)
    }

    /// Whether there is a copy of the blob.
    ///
    /// # Errors
    /// [`IndexError::DamagedCache`].
    pub fn contains(&self, id: &BlobId) -> Result<bool, IndexError> {
        Ok(self.find(id)?.is_some())
    }

    fn each_copy(&self, id: &BlobId, each: &mut dyn FnMut(Found)) -> Result<(), IndexError> {
        for (number, Part { table, hidden }) in self.parts.iter().enumerate() {
            let mut damage = Ok(());
            let looked_up = table.lookup(id, &mut |entry, row: Row| {
                if hidden.contains(row.pack) {
                    return;
                }
                match with_base(table, entry, &row) {
                    Ok(blob) => each(Found {
                        pack: PackNumber {
                            part: number,
                            pack: row.pack,
                        },
                        entry: blob,
                    }),
                    Err(error) => damage = Err(error),
                }
            });
            looked_up
                .and(damage)
                .map_err(|error| damaged(table, error))?;
        }
        Ok(())
    }

    /// What is known of a pack.
    #[must_use]
    pub fn pack(&self, number: PackNumber) -> Option<PackInfo> {
        let part = self.parts.get(number.part)?;
        let row = part.table.pack(number.pack)?;
        (!part.hidden.contains(number.pack))
            .then(|| part.pack_info(number, row))
            .flatten()
    }

    /// What is known of a pack, by its id.
    #[must_use]
    pub fn pack_by_id(&self, id: &PackId) -> Option<PackInfo> {
        self.parts
            .iter()
            .enumerate()
            .find_map(|(part, Part { table, hidden })| {
                (table.seek_pack(0, id)..table.counts().packs)
                    .take_while(|pack| table.pack_id(*pack).as_ref() == Some(id))
                    .find(|pack| !hidden.contains(*pack))
                    .and_then(|pack| self.pack(PackNumber { part, pack }))
            })
    }

    /// The blobs of a pack, by offset. Empty for a pack that does not count.
    ///
    /// # Errors
    /// [`IndexError::DamagedCache`].
    pub fn entries_of(&self, number: PackNumber) -> Result<Vec<BlobEntry>, IndexError> {
        let Some(part) = self.parts.get(number.part) else {
            return Ok(Vec::new());
        };
        if part.hidden.contains(number.pack) {
            return Ok(Vec::new());
        }
        let Some(pack) = part.table.pack(number.pack) else {
            return Ok(Vec::new());
        };
        let table = &*part.table;
        let entries = || -> Result<Vec<BlobEntry>, DecodeError> {
            let order = table.order_of(&pack)?;
            order
                .into_iter()
                .map(|entry| with_base(table, entry, &table.entry(entry)?))
                .collect()
        };
        entries().map_err(|error| damaged(table, error))
    }

    /// All packs.
    pub fn packs(&self) -> impl Iterator<Item = PackInfo> {
        self.parts.iter().enumerate().flat_map(move |(part, own)| {
            (0..own.table.counts().packs)
                .filter_map(move |pack| self.pack(PackNumber { part, pack }))
        })
    }

    /// All different blobs, ascending, without holding more than a small buffer.
    ///
    /// # Errors
    /// [`IndexError::DamagedCache`], also from the iterator.
    pub fn blob_ids(&self) -> Result<BlobIds<'_>, IndexError> {
        let sources: Vec<_> = self
            .parts
            .iter()
            .map(|Part { table, hidden }| Source { table, hidden })
            .collect();
        let merged = Merged::new(&sources);
        Ok(BlobIds {
            merged: merged.map_err(|damage| self.source_damage(&damage))?,
            index: self,
            last: None,
        })
    }

    /// Number of different blobs; reads all tables.
    ///
    /// # Errors
    /// [`IndexError::DamagedCache`].
    pub fn blob_count(&self) -> Result<u64, IndexError> {
        let mut count = 0;
        for id in self.blob_ids()? {
            id?;
            count += 1;
        }
        Ok(count)
    }

    /// Number of copies of blobs, from the packs alone.
    #[must_use]
    pub fn copy_count(&self) -> u64 {
        self.packs().map(|pack| u64::from(pack.blobs)).sum()
    }

    /// Reads all tables and checks them, for work that should not meet damage half way.
    ///
    /// # Errors
    /// [`IndexError::DamagedCache`].
    pub fn verify(&self) -> Result<(), IndexError> {
        self.parts.iter().try_for_each(|Part { table, .. }| {
            table.verify().map_err(|error| damaged(table, error))
        })
    }

    /// Adds a table. With `live`, packs count only where a live index object names them.
    fn attach(&mut self, table: Table, live: Option<&BTreeSet<IndexId>>) {
        let mut hidden = Mask::default();
        if let Some(live) = live {
            hide_dead(&table, live, &mut hidden);
        }
        hide_swept(&table, &self.swept, &mut hidden);
        if table.counts().duplicates {
            hide_repeated(&table, &mut hidden);
        }
        for earlier in &self.parts {
            hide_known(&table, earlier, &mut hidden);
        }
        self.parts.push(Part {
            table: Arc::new(table),
            hidden,
        });
    }

    /// Makes the tables in memory one, once there are many.
    fn compact(&mut self) -> Result<(), IndexError> {
        let in_memory = |part: &Part| part.table.file().is_none();
        if self.parts.iter().filter(|part| in_memory(part)).count() <= MAX_IN_MEMORY {
            return Ok(());
        }
        let (small, kept): (Vec<_>, Vec<_>) = self.parts.iter().cloned().partition(in_memory);
        let tables: Vec<&Table> = small.iter().map(|part| &*part.table).collect();
        let merged = MergePlan::new(&tables, &|_| true)
            .map_err(MergeError::from)
            .and_then(|plan| plan.write(&tables, IN_MEMORY, Sink::Memory(Vec::new())));
        let table = match merged {
            Ok(sink) => open_in_memory(Ok(sink), IN_MEMORY)?,
            Err(MergeError::Write(error)) => return Err(IndexError::Build(error)),
            Err(MergeError::Source(damage)) => return Err(IndexError::Damaged(damage.error)),
        };
        self.parts = kept;
        self.attach(table, None);
        Ok(())
    }

    fn source_damage(&self, damage: &merge::SourceDamage) -> IndexError {
        match self.parts.get(damage.source) {
            Some(part) => damaged(&part.table, damage.error),
            None => IndexError::Damaged(damage.error),
        }
    }
}

impl Part {
    fn pack_info(&self, number: PackNumber, row: PackRow) -> Option<PackInfo> {
        Some(PackInfo {
            number,
            index: self.table.index_of(&row)?,
            id: row.id,
            len: row.len,
            header: row.header,
            blobs: row.blobs,
        })
    }
}

/// The different blobs of an index, ascending.
pub struct BlobIds<'a> {
    merged: Merged<'a>,
    index: &'a Index,
    last: Option<BlobId>,
}

impl Iterator for BlobIds<'_> {
    type Item = Result<BlobId, IndexError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.merged.next() {
                Ok(None) => return None,
                Ok(Some(item)) if self.last == Some(item.row.id) => {}
                Ok(Some(item)) => {
                    self.last = Some(item.row.id);
                    return Some(Ok(item.row.id));
                }
                Err(damage) => return Some(Err(self.index.source_damage(&damage))),
            }
        }
    }
}

fn with_base(table: &Table, entry: u32, row: &Row) -> Result<BlobEntry, DecodeError> {
    let base = row.has_base.then(|| table.base(entry)).transpose()?;
    Ok(row.blob(base))
}

/// The error for damage in a table; its file goes, so that it is met once.
fn damaged(table: &Table, source: DecodeError) -> IndexError {
    match table.file() {
        Some(file) => {
            cache::discard(file);
            IndexError::DamagedCache {
                file: file.to_path_buf(),
                source,
            }
        }
        None => IndexError::Damaged(source),
    }
}

/// Hides packs that only dead index objects name.
fn hide_dead(table: &Table, live: &BTreeSet<IndexId>, hidden: &mut Mask) {
    let is_live: Vec<bool> = table.covered().map(|id| live.contains(&id)).collect();
    if is_live.iter().all(|live| *live) {
        return;
    }
    for number in 0..table.counts().packs {
        let index = table.pack(number).and_then(|pack| table.index_of(&pack));
        if index.is_none_or(|index| !live.contains(&index)) {
            hidden.insert(number);
        }
    }
}

fn hide_swept(table: &Table, swept: &HashSet<PackId>, hidden: &mut Mask) {
    for id in swept {
        let mut number = table.seek_pack(0, id);
        while table.pack_id(number).as_ref() == Some(id) {
            hidden.insert(number);
            number += 1;
        }
    }
}

/// Hides all but the first of packs that stand in the table more than once.
fn hide_repeated(table: &Table, hidden: &mut Mask) {
    let mut last = None;
    for number in 0..table.counts().packs {
        if hidden.contains(number) {
            continue;
        }
        let id = table.pack_id(number);
        if id == last {
            hidden.insert(number);
        }
        last = id;
    }
}

/// Hides packs that another table has, and that count there.
fn hide_known(table: &Table, earlier: &Part, hidden: &mut Mask) {
    let mut from = 0;
    for number in 0..table.counts().packs {
        let Some(id) = table.pack_id(number) else {
            continue;
        };
        from = earlier.table.seek_pack(from, &id);
        let mut other = from;
        while earlier.table.pack_id(other).as_ref() == Some(&id) {
            if !earlier.hidden.contains(other) {
                hidden.insert(number);
            }
            other += 1;
        }
    }
}
