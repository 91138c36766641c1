//! Bits flipped all over packs of full size: a check names exactly the blobs that they are in, and
//! none of these is read as something else; the bits between the blobs make the pack itself bad.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_repo::{
    backend::{MemBackend, ObjectName},
    check::{CheckOptions, Problem, ReadData},
    codec::Hint,
    crypto::BlobKind,
    env::testing::seeded,
    format::{config::ConfigBody, pack::BlobEntry},
    id::{BlobId, PackId},
    repository::{Repository, testing},
    writer::WriterOptions,
};

use crate::golden::noise;

/// Bytes aimed at in one pack.
const PACK: u32 = 32 << 20;

/// What flipping came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flipped {
    /// Bits inside blobs.
    pub in_blobs: u64,
    /// Bits between and behind them.
    pub elsewhere: u64,
    /// Bytes of the packs.
    pub bytes: u64,
}

/// Flips about `bits` bits, in rounds: in each, one bit in about half of the blobs of every pack,
/// and then one bit of the rest of a pack.
///
/// # Errors
/// A flip that was not named, or was read as something else.
pub fn flip(bits: u64, seed: u64) -> Result<Flipped, Box<dyn std::error::Error>> {
    let store = MemBackend::new();
    let repo = fill(&store, seed)?;
    let index = repo.index();
    let mut layout: BTreeMap<PackId, Vec<BlobEntry>> = BTreeMap::new();
    for pack in index.packs().filter(|pack| pack.len > u64::from(PACK / 2)) {
        layout.insert(pack.id, index.entries_of(pack.number)?);
    }
    if layout.is_empty() {
        return Err("no pack is of full size".into());
    }
    let sound = store.objects();
    let bytes_of = |pack: &PackId| {
        let object = sound.get(&ObjectName::Pack(*pack));
        object.map(|bytes| bytes.to_vec()).unwrap_or_default()
    };
    let mut state = Draw(seed);
    let mut done = Flipped::default();
    for pack in layout.keys() {
        done.bytes += u64::try_from(bytes_of(pack).len())?;
    }
    while done.in_blobs + done.elsewhere < bits {
        let mut expected: BTreeMap<PackId, BTreeSet<BlobId>> = BTreeMap::new();
        for (pack, entries) in &layout {
            let mut bytes = bytes_of(pack);
            let flipped = expected.entry(*pack).or_default();
            for entry in entries {
                if state.below(2) == 0 {
                    let at = u64::from(entry.offset) + state.below(u64::from(entry.sealed_len));
                    flip_bit(&mut bytes, at, state.below(8))?;
                    done.in_blobs += 1;
                    flipped.insert(entry.id);
                }
            }
            store.replace(ObjectName::Pack(*pack), bytes);
        }
        judge_blobs(&repo, &layout, &expected)?;
        for (pack, entries) in &layout {
            let mut bytes = bytes_of(pack);
            let len = u64::try_from(bytes.len())?;
            let first = entries.iter().map(|entry| u64::from(entry.offset)).min();
            let end = entries.iter().map(BlobEntry::end).max();
            let (first, end) = (first.unwrap_or(0), end.unwrap_or(0));
            // In front of the blobs, or behind them.
            let place = state.below(first + len - end);
            let at = if place < first {
                place
            } else {
                place - first + end
            };
            flip_bit(&mut bytes, at, state.below(8))?;
            done.elsewhere += 1;
            store.replace(ObjectName::Pack(*pack), bytes);
            judge_pack(&repo, *pack)?;
            store.replace(ObjectName::Pack(*pack), bytes_of(pack));
        }
    }
    Ok(done)
}

fn judge_blobs(
    repo: &Repository,
    layout: &BTreeMap<PackId, Vec<BlobEntry>>,
    expected: &BTreeMap<PackId, BTreeSet<BlobId>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 2,
    };
    let report = repo.check(options, &(), &AtomicBool::new(false))?;
    let mut reader = repo.reader()?;
    for (pack, blobs) in expected {
        if report.bad_blobs.get(pack) != Some(blobs) {
            return Err(format!("not exactly the damaged blobs of {pack} are named").into());
        }
        for entry in layout.get(pack).into_iter().flatten() {
            let blob = entry.id;
            if reader.load(&blob).is_ok() == blobs.contains(&blob) {
                return Err(format!("blob {blob} of {pack} is read as if it were another").into());
            }
        }
    }
    Ok(())
}

fn judge_pack(repo: &Repository, pack: PackId) -> Result<(), Box<dyn std::error::Error>> {
    let options = CheckOptions {
        read_data: ReadData::All,
        workers: 2,
    };
    let report = repo.check(options, &(), &AtomicBool::new(false))?;
    let named = report.findings.iter().any(|finding| {
        finding.object == Some(ObjectName::Pack(pack))
            && matches!(
                finding.what,
                Problem::Pack { .. } | Problem::TableOfContents
            )
    });
    if named {
        return Ok(());
    }
    Err(format!("damage between the blobs of {pack} is not named").into())
}

fn flip_bit(bytes: &mut [u8], at: u64, bit: u64) -> Result<(), Box<dyn std::error::Error>> {
    let byte = bytes
        .get_mut(usize::try_from(at)?)
        .ok_or("beyond the pack")?;
    *byte ^= 1 << bit;
    Ok(())
}

/// Two data packs of full size, of blobs of many lengths.
fn fill(store: &MemBackend, seed: u64) -> Result<Repository, Box<dyn std::error::Error>> {
    let config = ConfigBody {
        pack_target: PACK,
        ..testing::config()
    };
    let (repo, _) = testing::create(Arc::new(store.clone()), seeded(seed), config)?;
    let writer = repo.writer(WriterOptions {
        pack_target: PACK,
        ..WriterOptions::default()
    });
    let mut bench = writer.bench()?;
    let mut state = Draw(seed);
    let mut sum = 0;
    while sum < 3 * usize::try_from(PACK)? {
        let most = 1 << (10 + state.below(11));
        let len = 1 + usize::try_from(state.below(most))?;
        let bytes = noise(&format!("{seed} {sum}"), len);
        writer.put(&mut bench, BlobKind::Data, Hint::Plain, &bytes)?;
        sum += len;
    }
    repo.keep(&writer, &mut bench)?;
    drop(writer);
    Ok(repo)
}

/// Numbers that follow from a seed (splitmix64).
struct Draw(u64);

impl Draw {
    const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        if bound == 0 { 0 } else { mixed % bound }
    }
}
