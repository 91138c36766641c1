//! The quick way of a check: a pack is read in pieces that stay in the processor's cache. It tells
//! no more than whether all is as it should be. Where it is not, or is out of the ordinary, the
//! thorough way of the parent module has the whole pack at hand and tells what it is.
//!
//! Must stay true: nothing is called sound here that the thorough way would find fault with.

use super::PackChecker;
use crate::{
    aligned::{AlignedBuf, PAGE},
    backend::ObjectName,
    crypto::ObjectKey,
    error::{Error, Result},
    format::{DecodeError, cursor::to_usize, pack::BlobEntry},
    id::PackId,
    index::PackInfo,
    pack::{
        open_blob,
        reader::{Frame, open_group},
    },
};

/// Bytes read at a time.
const PIECE: usize = 8 << 20;

/// Longest tail that is read at once: table of contents, padding and checksums.
const MAX_TAIL: u64 = 4 << 20;

/// What packs are read into.
#[derive(Default)]
pub(super) struct Window {
    /// A piece, behind what the piece before had of a blob that goes on in it; or a whole pack.
    pub(super) buffer: AlignedBuf,
    tail: AlignedBuf,
}

/// A piece of a pack in memory.
struct Piece<'a> {
    bytes: &'a mut [u8],
    /// Where in the pack `bytes` begin.
    start: usize,
}

impl Piece<'_> {
    fn blob(&mut self, entry: &BlobEntry) -> Option<&mut [u8]> {
        let from = to_usize(entry.offset).checked_sub(self.start)?;
        let to = from.checked_add(to_usize(entry.sealed_len))?;
        self.bytes.get_mut(from..to)
    }
}

impl PackChecker<'_> {
    /// Whether all of a pack is as it should be; false where that cannot be told in this way.
    ///
    /// # Errors
    /// Something is not.
    pub(super) fn is_sound(&mut self, pack: &PackInfo, entries: &[BlobEntry]) -> Result<bool> {
        let mut window = std::mem::take(&mut self.window);
        let sound = self.read_pieces(&mut window, pack, entries);
        self.window = window;
        Ok(sound?.is_some())
    }

    fn read_pieces(
        &mut self,
        window: &mut Window,
        pack: &PackInfo,
        entries: &[BlobEntry],
    ) -> Result<Option<()>> {
        let (backend, name) = (self.repo.backend(), ObjectName::Pack(pack.id));
        let (roots, domain) = (self.repo.roots(), self.repo.domain());
        let id = pack.id;
        let broken = |source| Error::Pack { pack: id, source };
        let Some((blobs_end, tail_len)) = tail(pack, entries) else {
            return Ok(None);
        };
        let tail = window.tail.room(tail_len);
        backend.read_stored(&name, u64::from(blobs_end), tail)?;
        let header = pack.header.encode();
        let frame = Frame::check(id, &header, tail, blobs_end).map_err(broken)?;
        frame.check_padding().map_err(broken)?;
        let (trailer, mut toc) = (&frame.trailer, frame.sealed_toc.to_vec());
        let group = open_group(&header, &mut toc, trailer, roots, domain, id).map_err(broken)?;
        let shard = to_usize(trailer.shard_size);
        if group.entries != entries || group.len != pack.len || !PIECE.is_multiple_of(shard) {
            return Ok(None);
        }
        let key =
            ObjectKey::open(roots, domain, group.header).map_err(|source| broken(source.into()))?;

        let longest = entries.iter().map(|entry| entry.sealed_len).max();
        let room = to_usize(longest.unwrap_or(0)).next_multiple_of(PAGE);
        let covered = to_usize(trailer.covered_len());
        let (mut at, mut carried, mut rest) = (0, 0, entries);
        while at < covered {
            let len = PIECE.min(covered - at);
            let buffer = window.buffer.room(room + len);
            let (_, piece) = buffer.split_at_mut(room);
            backend.read_stored(&name, to_u64(at), piece)?;
            if at == 0 && !piece.starts_with(&header) {
                return Ok(None);
            }
            frame.check_shards(at / shard, piece).map_err(broken)?;
            let start = at - carried;
            at += len;
            let here = rest.partition_point(|entry| entry.end() <= to_u64(at));
            let (here, later) = rest.split_at(here);
            let (_, bytes) = buffer.split_at_mut(room - carried);
            self.check_piece(&key, id, &mut Piece { bytes, start }, here)?;
            rest = later;
            let next = rest.first().map_or(at, |next| to_usize(next.offset));
            carried = at.saturating_sub(next);
            let Some(to) = room.checked_sub(carried) else {
                return Ok(None);
            };
            buffer.copy_within(room + len - carried.., to);
        }
        Ok(rest.is_empty().then_some(()))
    }

    /// Opens the blobs that lie in a piece, and compares their ids.
    fn check_piece(
        &mut self,
        key: &ObjectKey,
        pack: PackId,
        piece: &mut Piece<'_>,
        entries: &[BlobEntry],
    ) -> Result<()> {
        for entry in self.in_order_of_bases(entries) {
            let blob = entry.id;
            let base = match &entry.base {
                None => None,
                Some(base) => {
                    let loaded = self.bases.load(self.repo.base_source(self.index), base)?;
                    Some(loaded.plain.as_slice())
                }
            };
            let truncated = DecodeError::Truncated { what: "pack" };
            let opened = match piece.blob(entry) {
                Some(sealed) => {
                    let (decoder, plain) = (&mut self.decoder, &mut self.plain);
                    open_blob(key, entry, sealed, base, decoder, plain)
                }
                None => Err(truncated.into()),
            };
            let plain = opened.map_err(|source| Error::Blob { blob, pack, source })?;
            if self.repo.roots().blob_id(entry.kind, plain) != blob {
                return Err(Error::WrongBlob { blob, pack });
            }
        }
        Ok(())
    }
}

/// Where the blobs of a pack end, and how long its tail is behind them; `None` where that is not
/// as usual, and where one read takes in all of it anyway.
fn tail(pack: &PackInfo, entries: &[BlobEntry]) -> Option<(u32, usize)> {
    let blobs_end = entries.iter().map(BlobEntry::end).max()?;
    let len = pack.len.checked_sub(blobs_end)?;
    (len <= MAX_TAIL && pack.len > to_u64(PIECE))
        .then_some((u32::try_from(blobs_end).ok()?, usize::try_from(len).ok()?))
}

fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
