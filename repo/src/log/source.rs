//! Where entries are read from: their own objects, and segments where those are quicker or where
//! an object is damaged. Knows bytes and numbers, not whether an entry is genuine.

use std::sync::Arc;

use super::{
    error::LogError,
    segment::{MAX_SEGMENT_LEN, Segment, entries_of, segment_of},
};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, ObjectKind, ObjectName},
    format::log::MAX_ENTRY_LEN,
    limits::LOG_SEGMENT_ENTRIES,
};

/// Entries read one by one before it is worth looking for a segment.
pub(super) const SINGLES_BEFORE_SEGMENT: u32 = 32;
/// Probes above the tail: the numbers n+1+2^k.
const PROBES: u32 = 10;

/// The objects of the log in a store.
pub(super) struct Source {
    pub(super) backend: Arc<dyn Backend>,
    segment: Option<Segment>,
    /// The segment that had the twin of the last entry which was damaged or missing.
    twins: Option<Segment>,
    /// A segment that was looked for and is not there.
    no_segment: u64,
    singles: u32,
    /// Every entry is read from its own object as long as that is whole.
    own_objects: bool,
}

/// What a read of an entry brought.
pub(super) enum Read {
    Object(Vec<u8>),
    Absent,
    TooLarge,
}

impl Source {
    pub(super) const fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            segment: None,
            twins: None,
            no_segment: 0,
            singles: SINGLES_BEFORE_SEGMENT,
            own_objects: false,
        }
    }

    /// From now on only what an entry's own object does not give is taken from a segment.
    pub(super) const fn prefer_own_objects(&mut self) {
        self.own_objects = true;
    }

    /// Prepares for reading from the first entry on.
    pub(super) fn rewind(&mut self) {
        self.segment = None;
        self.no_segment = 0;
        self.singles = SINGLES_BEFORE_SEGMENT;
    }

    /// Prepares for reading the few entries that others append now and then.
    pub(super) fn resume(&mut self) {
        self.segment = None;
        self.twins = None;
        self.singles = 0;
    }

    /// A number above the one after `tail` that exists, if a few probes find one.
    pub(super) fn probe(&self, tail: u64) -> Result<Option<u64>, LogError> {
        for k in 0..=PROBES {
            let Some(seq) = tail.checked_add(1 + (1 << k)) else {
                break;
            };
            match self.backend.len(&ObjectName::Log(seq)) {
                Ok(_) => return Ok(Some(seq)),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// The highest number that the store lists, of entries and of what segments hold.
    pub(super) fn highest_listed(&self) -> Result<u64, LogError> {
        let mut highest = 0;
        for kind in [ObjectKind::Log, ObjectKind::LogSegment] {
            self.backend.list(kind, &mut |name, _| match name {
                ObjectName::Log(seq) => highest = highest.max(seq),
                ObjectName::LogSegment(k) => {
                    highest = highest.max(k.saturating_mul(LOG_SEGMENT_ENTRIES));
                }
                _ => {}
            })?;
        }
        Ok(highest)
    }

    /// Reads the object of an entry.
    pub(super) fn read(&self, seq: u64) -> Result<Read, LogError> {
        read_entry(self.backend.as_ref(), seq)
    }

    /// The entry out of a segment, where one is at hand or worth looking for.
    pub(super) fn in_segment(&mut self, seq: u64) -> Result<Option<Vec<u8>>, LogError> {
        if self.own_objects {
            return Ok(None);
        }
        let k = segment_of(seq);
        let here = self.segment.as_ref().and_then(|segment| segment.entry(seq));
        if let Some(object) = here {
            return Ok(Some(object.to_vec()));
        }
        let boundary = entries_of(k).start == seq;
        if k == self.no_segment || !(boundary || self.singles >= SINGLES_BEFORE_SEGMENT) {
            self.singles = self.singles.saturating_add(1);
            return Ok(None);
        }
        self.singles = 0;
        self.segment = read_segment(self.backend.as_ref(), k)?;
        if self.segment.is_none() {
            self.no_segment = k;
        }
        let segment = self.segment.as_ref();
        Ok(segment
            .and_then(|segment| segment.entry(seq))
            .map(<[u8]>::to_vec))
    }

    /// The entry out of its segment, wherever that has to be read from.
    pub(super) fn twin(&self, seq: u64) -> Result<Option<Vec<u8>>, LogError> {
        let entry = |segment: &Segment| segment.entry(seq).map(<[u8]>::to_vec);
        if let Some(object) = self.segment.as_ref().and_then(entry) {
            return Ok(Some(object));
        }
        let segment = read_segment(self.backend.as_ref(), segment_of(seq))?;
        Ok(segment.as_ref().and_then(entry))
    }

    /// As [`Source::twin`], for one after the other: the segment is read once.
    pub(super) fn next_twin(&mut self, seq: u64) -> Result<Option<Vec<u8>>, LogError> {
        let entry = |segment: &Segment| segment.entry(seq).map(<[u8]>::to_vec);
        let mut found = self.twins.as_ref().and_then(entry);
        if found.is_none() {
            self.twins = read_segment(self.backend.as_ref(), segment_of(seq))?;
            found = self.twins.as_ref().and_then(entry);
        }
        Ok(found)
    }
}

/// The object of an entry.
pub(super) fn read_entry(backend: &dyn Backend, seq: u64) -> Result<Read, LogError> {
    match backend.read_all(&ObjectName::Log(seq), MAX_ENTRY_LEN) {
        Ok(object) => Ok(Read::Object(object)),
        Err(error) if error.is_not_found() => Ok(Read::Absent),
        Err(error) if error.kind == BackendErrorKind::TooLarge => Ok(Read::TooLarge),
        Err(error) => Err(error.into()),
    }
}

/// A segment, if there is a usable one.
pub(super) fn read_segment(backend: &dyn Backend, k: u64) -> Result<Option<Segment>, LogError> {
    let unusable =
        |error: &BackendError| error.is_not_found() || error.kind == BackendErrorKind::TooLarge;
    match backend.read_all(&ObjectName::LogSegment(k), u64::from(MAX_SEGMENT_LEN)) {
        Ok(bytes) => Ok(Segment::decode(k, bytes).ok()),
        Err(error) if unusable(&error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
