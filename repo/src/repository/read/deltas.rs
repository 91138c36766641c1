//! Reading many deltas at once. Their encodings are small, so as many as fit are held; then the
//! bases are read like any blobs, pack by pack and each once, and whatever rests on a base is
//! decoded while it is at hand.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{BlobReader, ByPack, MAX_READ, Take, run_len};
use crate::{
    codec::{Codec, CodecError, Decoder},
    error::{Error, Result},
    format::{cursor::to_usize, pack::BlobEntry},
    id::{BlobId, PackId},
    index::{Index, PackNumber},
    pack::reader::PackError,
};

/// A delta whose encoding is at hand.
struct Held {
    entry: BlobEntry,
    pack: PackId,
    codec: Codec,
    encoded: Vec<u8>,
    tags: Vec<u32>,
}

/// Deltas that could not be decoded, and why where that is known: what is not known is found out
/// when they are read alone.
type Failures = Vec<(BlobEntry, Vec<u32>, Option<Error>)>;

impl BlobReader<'_> {
    /// Reads deltas, by the packs that they lie in.
    pub(super) fn load_deltas<E>(
        &mut self,
        index: &Index,
        by_pack: ByPack,
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        let mut held = Vec::new();
        let mut bytes = 0;
        for (pack, mut blobs) in by_pack {
            blobs.sort_by_key(|(entry, tag)| (entry.offset, *tag));
            let mut rest = blobs.as_slice();
            while !rest.is_empty() {
                let (run, tail) = rest.split_at(run_len(rest));
                let failures = self.hold(index, pack, run, &mut held);
                self.rescue_deltas(failures, take, failed)?;
                bytes += run
                    .iter()
                    .map(|(entry, _)| u64::from(entry.sealed_len))
                    .sum::<u64>();
                if bytes >= MAX_READ {
                    self.decode_held(index, std::mem::take(&mut held), take, failed)?;
                    bytes = 0;
                }
                rest = tail;
            }
        }
        self.decode_held(index, held, take, failed)
    }

    /// Reads and opens a run of deltas; returns those that cannot be.
    fn hold(
        &mut self,
        index: &Index,
        pack: PackNumber,
        run: &[(BlobEntry, u32)],
        held: &mut Vec<Held>,
    ) -> Failures {
        let mut sealed = std::mem::take(&mut self.sealed);
        let mut failures = Failures::new();
        let mut fetched = self.fetch(index, pack, run, &mut sealed);
        for same in run.chunk_by(|(one, _), (other, _)| one.offset == other.offset) {
            let Some((entry, _)) = same.first() else {
                continue;
            };
            let tags = same.iter().map(|(_, tag)| *tag).collect();
            // What the store said is said again of each blob, when it is read alone.
            let Ok(fetched) = &mut fetched else {
                failures.push((*entry, tags, None));
                continue;
            };
            let opened = sealed_in(fetched.bytes, fetched.start, entry)
                .ok_or(Error::MissingBlob { blob: entry.id })
                .and_then(|bytes| {
                    let unreadable = |source| unreadable(entry, fetched.pack, source);
                    let info = entry.segment_info();
                    let open = fetched.key.open_segment(entry.segment, &info, bytes);
                    let encoded = open.map_err(|source| unreadable(source.into()))?;
                    let codec = Codec::try_from(entry.codec);
                    let codec = codec.map_err(|source| unreadable(source.into()))?;
                    Ok((codec, encoded.to_vec()))
                });
            match opened {
                Ok((codec, encoded)) => held.push(Held {
                    entry: *entry,
                    pack: fetched.pack,
                    codec,
                    encoded,
                    tags,
                }),
                Err(error) => failures.push((*entry, tags, Some(error))),
            }
        }
        self.sealed = sealed;
        failures
    }

    /// Reads the bases and decodes what rests on them.
    fn decode_held<E>(
        &mut self,
        index: &Index,
        held: Vec<Held>,
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        let mut failures = Failures::new();
        let (by_pack, by_base) = self.bases_of(index, held, &mut failures);
        let (repo, mut plain) = (self.repo, Vec::new());
        let mut decoder = match (by_base.is_empty(), Decoder::new()) {
            (true, _) => return self.rescue_deltas(failures, take, failed),
            (false, decoder) => decoder,
        };
        let mut lost = Vec::new();
        self.load_whole(
            index,
            by_pack,
            &mut |tag, base| {
                for delta in by_base.get(to_usize(tag)).into_iter().flatten() {
                    let decoded = match &mut decoder {
                        Ok(decoder) => delta.decode(decoder, base, &mut plain),
                        Err(error) => Err(error.clone().into()),
                    };
                    let wrong = || repo.roots.blob_id(delta.entry.kind, &plain) != delta.entry.id;
                    match decoded {
                        Ok(()) if wrong() => {
                            let (blob, pack) = (delta.entry.id, delta.pack);
                            let error = Error::WrongBlob { blob, pack };
                            failures.push((delta.entry, delta.tags.clone(), Some(error)));
                        }
                        Ok(()) => delta.tags.iter().try_for_each(|tag| take(*tag, &plain))?,
                        Err(error) => failures.push((delta.entry, delta.tags.clone(), Some(error))),
                    }
                }
                Ok(())
            },
            &mut |tag, error| lost.push((tag, error)),
        )?;
        for (tag, error) in lost {
            let mut error = Some(error);
            for delta in by_base.get(to_usize(tag)).into_iter().flatten() {
                let Some(base) = delta.entry.base else {
                    continue;
                };
                // The first is told what was met; the others find it out when they are read alone.
                let why = error.take().map(|why| baseless(&delta.entry, base, why));
                failures.push((delta.entry, delta.tags.clone(), why));
            }
        }
        self.rescue_deltas(failures, take, failed)
    }

    /// Where the bases of `held` lie, and what rests on each.
    fn bases_of(
        &self,
        index: &Index,
        held: Vec<Held>,
        failures: &mut Failures,
    ) -> (ByPack, Vec<Vec<Held>>) {
        let mut numbers: BTreeMap<BlobId, u32> = BTreeMap::new();
        let mut by_pack = ByPack::new();
        let mut by_base: Vec<Vec<Held>> = Vec::new();
        for delta in held {
            let Some(base) = delta.entry.base else {
                let source = CodecError::Base {
                    codec: delta.codec,
                    needs_base: true,
                };
                let error = unreadable(&delta.entry, delta.pack, source.into());
                failures.push((delta.entry, delta.tags, Some(error)));
                continue;
            };
            let number = match numbers.entry(base) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(vacant) => {
                    let whole = index.find(&base).ok().flatten();
                    let Some(whole) = whole.filter(|found| found.entry.base.is_none()) else {
                        let why = Error::MissingBlob { blob: base };
                        let error = baseless(&delta.entry, base, why);
                        failures.push((delta.entry, delta.tags, Some(error)));
                        continue;
                    };
                    let number = u32::try_from(by_base.len()).unwrap_or(u32::MAX);
                    by_base.push(Vec::new());
                    let blobs = by_pack.entry(whole.pack).or_default();
                    blobs.push((whole.entry, number));
                    *vacant.insert(number)
                }
            };
            if let Some(dependants) = by_base.get_mut(to_usize(number)) {
                dependants.push(delta);
            }
        }
        (by_pack, by_base)
    }

    /// Other copies may do where these do not.
    fn rescue_deltas<E>(
        &mut self,
        failures: Failures,
        take: &mut Take<'_, E>,
        failed: &mut dyn FnMut(u32, Error),
    ) -> Result<(), E> {
        for (entry, tags, error) in failures {
            let same: Vec<_> = tags.into_iter().map(|tag| (entry, tag)).collect();
            self.rescue(&same, error, take, failed)?;
        }
        Ok(())
    }
}

impl Held {
    fn decode(&self, decoder: &mut Decoder, base: &[u8], plain: &mut Vec<u8>) -> Result<()> {
        let len = to_usize(self.entry.plain_len);
        decoder
            .decode(self.codec, &self.encoded, Some(base), len, plain)
            .map_err(|source| unreadable(&self.entry, self.pack, source.into()))
    }
}

fn unreadable(entry: &BlobEntry, pack: PackId, source: PackError) -> Error {
    let blob = entry.id;
    Error::Blob { blob, pack, source }
}

/// The sealed bytes of a blob, in a part of its pack that begins at `start`.
pub(super) fn sealed_in<'a>(
    bytes: &'a mut [u8],
    start: u32,
    entry: &BlobEntry,
) -> Option<&'a mut [u8]> {
    let at = to_usize(entry.offset.checked_sub(start)?);
    bytes.get_mut(at..at + to_usize(entry.sealed_len))
}

/// Why a delta cannot be read although it is there.
pub(super) fn baseless(entry: &BlobEntry, base: BlobId, source: Error) -> Error {
    let (blob, source) = (entry.id, Box::new(source));
    Error::Base { blob, base, source }
}
