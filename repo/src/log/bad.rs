//! Which copies of blobs were found bad: the fold of `Attest` entries. A bad copy is not
//! deduplicated against, not used as a base and not counted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{format::log_body::Attest, id::PackId};

/// Copies of blobs that were found bad.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadCopies {
    whole: BTreeSet<PackId>,
    segments: BTreeMap<PackId, BTreeSet<u32>>,
}

impl BadCopies {
    pub(super) const fn new() -> Self {
        Self {
            whole: BTreeSet::new(),
            segments: BTreeMap::new(),
        }
    }

    /// Whether the copy in `segment` of `pack` is bad.
    #[must_use]
    pub fn contains(&self, pack: &PackId, segment: u32) -> bool {
        self.whole.contains(pack)
            || self
                .segments
                .get(pack)
                .is_some_and(|segments| segments.contains(&segment))
    }

    /// Whether all of a pack is bad, or else which segments of it.
    #[must_use]
    pub fn of(&self, pack: &PackId) -> (bool, BTreeSet<u32>) {
        let segments = self.segments.get(pack).cloned().unwrap_or_default();
        (self.whole.contains(pack), segments)
    }

    /// Whether nothing is bad.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.whole.is_empty() && self.segments.is_empty()
    }

    /// The packs of which something is bad.
    #[must_use]
    pub fn packs(&self) -> BTreeSet<PackId> {
        self.whole
            .iter()
            .chain(self.segments.keys())
            .copied()
            .collect()
    }

    pub(crate) fn apply(&mut self, attest: &Attest) {
        for finding in &attest.findings {
            let (pack, whole) = (finding.pack, finding.segments.is_empty());
            match (whole, finding.good) {
                (true, true) => {
                    self.whole.remove(&pack);
                    self.segments.remove(&pack);
                }
                (true, false) => {
                    self.whole.insert(pack);
                }
                (false, false) => {
                    let segments = self.segments.entry(pack).or_default();
                    segments.extend(&finding.segments);
                }
                (false, true) => {
                    let segments = self.segments.entry(pack).or_default();
                    segments.retain(|segment| !finding.segments.contains(segment));
                    if segments.is_empty() {
                        self.segments.remove(&pack);
                    }
                }
            }
        }
    }
}
