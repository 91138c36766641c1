//! Which blob a new one is stored as a delta of, and whether at all.
//!
//! The caller names an ancestor: what stood at the same place before. A base is never a delta
//! itself (docs/invariants.md, I16), so the base is the ancestor where that is whole, and else the
//! ancestor's own base. What drifts away from its base over generations is stored whole again
//! ([`is_worn`]), and is the base of those to come.
//!
//! Must stay true: a delta is decoded with its base and compared before it is sealed; the run
//! relies on the pack that the base was read from; whatever goes wrong with a base, the blob is
//! stored whole.

use xxhash_rust::xxh3::xxh3_128;

use super::{Ancestor, NewBlob, Shared, WorkBench, lock};
use crate::{
    base::Source,
    codec::{Codec, Hint, MIN_DELTA},
    error::Result,
    format::{cursor::to_usize, pack::BlobEntry},
    id::BlobId,
    index::Found,
};

/// When blobs are stored as what differs from another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeltaMode {
    /// Where a base is near: in a repository of this machine always. From a store that is far away
    /// no base is fetched for this alone.
    #[default]
    Auto,
    /// Never.
    Never,
    /// Wherever a base has to be fetched from.
    Always,
}

/// A place in two blobs with the same bytes, in bytes from their starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Common {
    /// In the new one.
    pub new: u32,
    /// In the older one.
    pub old: u32,
}

/// A delta that was decoded and compared.
pub(super) struct Proof {
    /// What it rests on.
    pub(super) base: BlobId,
    /// XXH3-128 of the encoding.
    pub(super) checksum: u128,
}

/// A delta may take this much of what the blob would take whole.
const WORTH: Fraction = Fraction(3, 4);

/// An ancestor that is a delta of more than this of its base is worn.
const WORN: Fraction = Fraction(2, 5);

/// The same for what changes by bytes: from a quarter to nine sixteenths, by the base. Pieces of a
/// database drift at the same pace, and are not to be stored whole in the same generation.
fn worn_bytes(base: &BlobId) -> Fraction {
    let [chance, ..] = *base.as_bytes();
    Fraction(16 + usize::from(chance) * 20 / 256, 64)
}

/// What a base costs beside the delta: its id in index and table of contents, and a read.
const OVERHEAD: usize = 128;

impl Shared {
    /// Encodes a blob into `bench.sealed` as a delta of what its ancestor rests on, if there is
    /// something to gain.
    pub(super) fn encode_delta(
        &self,
        bench: &mut WorkBench,
        new: &NewBlob<'_>,
        ancestor: Ancestor<'_>,
    ) -> Option<(Codec, Proof)> {
        if self.options.delta == DeltaMode::Never || new.plain.len() < MIN_DELTA {
            return None;
        }
        let result = self.try_delta(bench, new, &ancestor()?);
        result.unwrap_or_else(|error| {
            tracing::info!(%error, blob = %new.id, "storing a blob whole that could be a delta");
            None
        })
    }

    fn try_delta(
        &self,
        bench: &mut WorkBench,
        new: &NewBlob<'_>,
        ancestor: &BlobId,
    ) -> Result<Option<(Codec, Proof)>> {
        let whole = self.base_of(ancestor)?;
        let Some(whole) = whole.filter(|whole| whole.entry.kind == new.kind) else {
            return Ok(None);
        };
        let limit = limit(new.plain.len(), &whole.entry);
        let source = Source {
            backend: self.backend.as_ref(),
            roots: &self.roots,
            domain: self.domain,
            index: &self.index,
        };
        let base = bench.bases.load(source, &whole.entry.id)?;
        // Readable as it may be: a commit that rests on a damaged pack is refused.
        if lock(&self.lost).contains(&base.pack) {
            return Ok(None);
        }
        if new.hint == Hint::Plain {
            bench.common = common(new.plain, &base.plain);
        }
        let (encoder, out) = (&mut bench.encoder, &mut bench.sealed);
        let encoded = encoder.encode_delta(new.hint, new.plain, &base.plain, limit, out)?;
        let Some(codec) = encoded else {
            return Ok(None);
        };
        if self.options.verify {
            bench
                .scratch
                .compare_delta(codec, out, &base.plain, new.plain)?;
        }
        if self.relies_on_bases {
            self.rely_on(base.pack);
        }
        let proof = Proof {
            base: base.id,
            checksum: xxh3_128(out),
        };
        Ok(Some((codec, proof)))
    }

    /// The blob that a successor of `ancestor` rests on: a whole copy of it.
    fn base_of(&self, ancestor: &BlobId) -> Result<Option<Found>> {
        let Some(found) = self.index.find(ancestor)? else {
            return Ok(None);
        };
        let Some(base) = found.entry.base else {
            return Ok(Some(found));
        };
        let whole = self.index.find(&base)?;
        let whole = whole.filter(|whole| whole.entry.base.is_none());
        Ok(whole.filter(|whole| !is_worn(&found.entry, &whole.entry)))
    }
}

/// Bytes that two blobs have to have in common at a place: more than a line of most tables.
const SAMPLE: usize = 160;

/// A place at which two blobs hold the same bytes, rather far back in the new one: what comes
/// behind it in its file is looked for by it.
fn common(new: &[u8], old: &[u8]) -> Option<Common> {
    let places = [7, 6, 4, 2].map(|eighths| new.len() / 8 * eighths);
    places.into_iter().find_map(|place| {
        let sample = new.get(place..place + SAMPLE)?;
        // What is everywhere tells nothing.
        if sample.iter().all(|byte| Some(byte) == sample.first()) {
            return None;
        }
        // Most of what did not move is where it was, and need not be searched for.
        let here = old.get(place..place + SAMPLE) == Some(sample);
        let found = if here {
            place
        } else {
            memchr::memmem::find(old, sample)?
        };
        Some(Common {
            new: u32::try_from(place).ok()?,
            old: u32::try_from(found).ok()?,
        })
    })
}

/// Whether a delta has drifted so far from its base that its successor should be whole. Asked of
/// the ancestor rather than of the new delta: a single large step, after which nothing comes, is
/// cheaper as a delta; only what is stored again from far away pays for a new base.
fn is_worn(delta: &BlobEntry, base: &BlobEntry) -> bool {
    let whole = whole_len(to_usize(delta.plain_len), base);
    let limit = if delta.codec == Codec::DeltaBytes.to_byte() {
        worn_bytes(&base.id)
    } else {
        WORN
    };
    to_usize(delta.sealed_len) > limit.of(whole)
}

/// Bytes that a delta may take.
fn limit(plain_len: usize, base: &BlobEntry) -> usize {
    WORTH
        .of(whole_len(plain_len, base))
        .saturating_sub(OVERHEAD)
}

/// What bytes like those of the base take when they are stored whole.
fn whole_len(plain_len: usize, base: &BlobEntry) -> usize {
    let sealed = u64::from(base.sealed_len) * u64::try_from(plain_len).unwrap_or(0);
    let whole = sealed / u64::from(base.plain_len.max(1));
    usize::try_from(whole).unwrap_or(usize::MAX).min(plain_len)
}

/// A part of something.
struct Fraction(usize, usize);

impl Fraction {
    const fn of(&self, whole: usize) -> usize {
        whole / self.1 * self.0 + whole % self.1 * self.0 / self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_of_what_changes_by_bytes_wear_out_at_different_times() {
        let worn = |first: u8| {
            let mut id = [7; 32];
            id[0] = first;
            worn_bytes(&BlobId::new(id)).of(64_000)
        };
        assert_eq!((worn(0), worn(255)), (16_000, 35_000));
        let mean = (0..=255).map(worn).sum::<usize>() / 256;
        assert!((25_000..26_000).contains(&mean), "about two fifths: {mean}");
    }

    #[test]
    fn what_two_blobs_have_in_common_is_found_where_it_moved_to() {
        let mut old = vec![0; 64 << 10];
        blake3::Hasher::new().finalize_xof().fill(&mut old);
        let mut new = old.clone();
        new.splice(100..100, [7; 1234]);
        let found = common(&new, &old).unwrap();
        assert_eq!(found.new, found.old + 1234);
        assert!(found.new as usize > new.len() / 2);
        assert_eq!(common(&new, &new[..100]), None);
        assert_eq!(common(&[1; 5000], &[1; 5000]), None, "says nothing");
        for len in 0..200 {
            assert_eq!(common(&new[..len], &[]), None);
        }
    }
}
