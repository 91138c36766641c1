//! Getting what is still good out of packs with damage in them: where every needed blob of such a
//! pack is either good or has another copy, the good ones are copied to a new pack, so that the
//! damaged one can go. A pack that holds the last copy of something damaged stays as it is.

use std::collections::{BTreeSet, HashMap};

use super::{
    Reach,
    plan::Amount,
    verify::CopyReader,
    view::{copies_of, entries_of, pack_of},
};
use crate::{
    codec::Hint,
    crypto::BlobKind,
    error::Result,
    format::{log::EntryKind, pack::BlobEntry},
    id::{BlobId, PackId},
    index::{Found, Index, PackInfo},
    log::state::State,
    repository::Repository,
    writer::WriterOptions,
};

/// What was copied out of damaged packs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rescued {
    /// Blobs and their sealed bytes.
    pub blobs: Amount,
    /// The packs that need not stay for them any more.
    pub packs: u64,
}

/// Copies what is needed and good out of damaged packs and indexes it. Does nothing where the key
/// in use may not add packs; stops where the disk is full, since the prune then has to go on
/// without.
pub(super) fn rescue<R: Reach>(
    repo: &Repository,
    index: &Index,
    state: &State,
    reach: &R,
    in_flight: usize,
) -> Result<Rescued> {
    if state.bad.is_empty() || !repo.may_append(EntryKind::AddPacks) {
        return Ok(Rescued::default());
    }
    let mut ward = Ward {
        repo,
        index,
        state,
        damaged: state.bad.packs(),
        records: None,
    };
    let mut wanted = Vec::new();
    for id in &state.bad.packs() {
        if let Some(pack) = index.pack_by_id(id)
            && let Some(blobs) = ward.only_there(&pack, reach)?
            && !blobs.is_empty()
        {
            wanted.push((pack, blobs));
        }
    }
    if wanted.is_empty() {
        return Ok(Rescued::default());
    }
    let options = WriterOptions {
        pack_target: repo.config().pack_target,
        in_flight,
        ..WriterOptions::default()
    };
    match ward.copy(&wanted, options) {
        Err(error) if error.is_no_space() => {
            tracing::warn!("no room to copy anything out of damaged packs: they stay");
            Ok(Rescued::default())
        }
        result => result,
    }
}

/// Where damaged packs are looked after.
struct Ward<'a> {
    repo: &'a Repository,
    index: &'a Index,
    state: &'a State,
    damaged: BTreeSet<PackId>,
    /// The records of live snapshots by the blobs that repeat them, once they are asked for.
    records: Option<HashMap<BlobId, Vec<u8>>>,
}

impl Ward<'_> {
    /// The needed blobs that lie in no pack without damage and can be had all the same; `None`
    /// where one of them cannot.
    fn only_there<R: Reach>(
        &mut self,
        pack: &PackInfo,
        reach: &R,
    ) -> Result<Option<Vec<BlobEntry>>> {
        // Of a pack that is bad as a whole, reading tells in the end.
        let bad = self.state.bad.of(&pack.id).1;
        let mut blobs = Vec::new();
        for entry in entries_of(self.index, pack)? {
            if !reach.contains(&entry.id) || self.is_elsewhere(&entry.id)? {
                continue;
            }
            let is_lost = bad.contains(&entry.segment) && self.record(&entry).is_none();
            if is_lost || entry.base.is_some() {
                return Ok(None);
            }
            blobs.push(entry);
        }
        Ok(Some(blobs))
    }

    fn is_elsewhere(&self, blob: &BlobId) -> Result<bool> {
        let copies = copies_of(self.index, blob)?;
        let packs = copies.iter().filter_map(|copy| pack_of(self.index, copy));
        Ok(packs.into_iter().any(|pack| !self.damaged.contains(&pack)))
    }

    /// The record that a blob repeats: the one in use is as good as its copy.
    fn record(&mut self, entry: &BlobEntry) -> Option<&[u8]> {
        if entry.kind != BlobKind::Snapshot {
            return None;
        }
        let repo = self.repo;
        let live = &self.state.snapshots;
        let records = self.records.get_or_insert_with(|| {
            let records = live.keys().filter_map(|id| repo.load_own_record(*id).ok());
            records
                .map(|record| (repo.blob_id(BlobKind::Snapshot, &record), record))
                .collect()
        });
        records.get(&entry.id).map(Vec::as_slice)
    }

    /// Copies blobs to new packs and indexes those.
    fn copy(
        &mut self,
        wanted: &[(PackInfo, Vec<BlobEntry>)],
        options: WriterOptions,
    ) -> Result<Rescued> {
        let writer = self.repo.writer(options);
        let mut bench = writer.bench()?;
        let mut reader = CopyReader::new(self.repo)?;
        let mut rescued = Rescued::default();
        for (pack, blobs) in wanted {
            let mut all = true;
            for entry in blobs {
                let found = Found {
                    pack: pack.number,
                    entry: *entry,
                };
                let read = reader.read(self.index, pack.id, &found);
                let plain = read.or_else(|| self.record(entry));
                let Some(plain) = plain else {
                    all = false;
                    break;
                };
                let put = writer.put(&mut bench, entry.kind, Hint::Plain, plain);
                put.map_err(|error| writer.cause(error))?;
                rescued.blobs.add(u64::from(entry.sealed_len));
            }
            rescued.packs += u64::from(all);
        }
        self.repo.keep(&writer, &mut bench)?;
        Ok(rescued)
    }
}
