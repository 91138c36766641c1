//! All crashes of a run, from one recording of it: what a machine may have on its disk that stops
//! before, after or within any step. A run with several threads is recorded in the order in which
//! its steps took effect; another recording may have another order.
//!
//! The three persistence models are: everything issued is there; only what a barrier covered; that
//! and any choice of the later changes, each on its own at least.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    super::{MemBackend, ObjectName},
    images::{Change, Journal, Objects, Step},
    script::TORN_LENS,
};

/// A store as it was in the beginning, and what was done to it.
#[derive(Clone, Debug)]
pub struct History {
    start: Objects,
    steps: Vec<Step>,
    now: Journal,
}

/// How thoroughly crashes are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// Whether writes are torn at all of [`TORN_LENS`], not only in the middle and one byte before
    /// their end.
    pub all_tears: bool,
    /// Every choice among the changes that no barrier covered is an image of its own, where there
    /// are at most so many of them.
    pub subsets: u32,
}

impl Depth {
    /// What fits into a test.
    pub const QUICK: Self = Self {
        all_tears: false,
        subsets: 3,
    };
    /// All there is.
    pub const FULL: Self = Self {
        all_tears: true,
        subsets: 8,
    };
}

/// What a crash may leave. The location of the image says which crash it was.
#[derive(Debug)]
pub struct CrashState {
    /// Steps done before.
    pub steps: usize,
    /// The object that is under its name only in part. A store that keeps its promises never
    /// leaves one: this is a disk that reported a sync it had not done.
    pub torn: Option<ObjectName>,
    /// What is left.
    pub image: MemBackend,
}

/// The crashes of a history.
#[derive(Debug, Default)]
pub struct Crashes {
    /// How many were gone through: moments, tears and models.
    pub counted: u64,
    /// Those that differ; of several with the same image the last, for which most was promised.
    pub states: Vec<CrashState>,
}

impl History {
    pub(super) fn new(start: Objects) -> Self {
        Self {
            now: Journal::new(start.clone()),
            start,
            steps: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, step: Step) {
        self.now.take(&step);
        self.steps.push(step);
    }

    pub(super) const fn journal(&self) -> &Journal {
        &self.now
    }

    /// How many steps there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing was done.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The objects after the last step.
    #[must_use]
    pub fn end(&self) -> BTreeMap<ObjectName, Arc<Vec<u8>>> {
        let mut objects = self.now.durable().clone();
        for change in self.now.pending() {
            change.apply(&mut objects);
        }
        objects
    }

    /// All crashes of the run, the last moment first.
    #[must_use]
    pub fn crashes(&self, depth: Depth) -> Crashes {
        let mut journals = vec![Journal::new(self.start.clone())];
        for step in &self.steps {
            let mut next = journals.last().cloned().unwrap_or_default();
            next.take(step);
            journals.push(next);
        }
        let mut found = Found::default();
        for (steps, journal) in journals.iter().enumerate().rev() {
            let next = self.steps.get(steps);
            let torn = next.map(|step| torn(step, depth)).unwrap_or_default();
            for (name, bytes) in torn {
                let torn = Some(name);
                for image in torn_images(journal, &at(steps, next), name, &bytes) {
                    found.add(CrashState { steps, torn, image });
                }
            }
            let label = at(steps, next);
            let images = journal
                .subsets(&label, depth.subsets)
                .unwrap_or_else(|| journal.images(&label));
            for image in images {
                let torn = None;
                found.add(CrashState { steps, torn, image });
            }
        }
        found.crashes
    }
}

fn at(steps: usize, next: Option<&Step>) -> String {
    let next = match next {
        None => "the end".to_owned(),
        Some(Step::Change(change)) => change.describe(),
        Some(Step::Replace(name, _)) => format!("replace {name}"),
        Some(Step::Barrier(kind)) => format!("barrier {kind:?}"),
    };
    format!("crash after {steps} steps, before {next}")
}

/// What a step that writes leaves if it is torn.
fn torn(step: &Step, depth: Depth) -> Vec<(ObjectName, Vec<u8>)> {
    let (Step::Change(Change::Put(name, bytes)) | Step::Replace(name, bytes)) = step else {
        return Vec::new();
    };
    let whole = bytes.len();
    let mut lens: Vec<usize> = vec![whole / 2, whole.saturating_sub(1)];
    if depth.all_tears {
        lens.extend(
            TORN_LENS
                .iter()
                .filter_map(|len| usize::try_from(*len).ok()),
        );
    }
    lens.sort_unstable();
    lens.dedup();
    lens.retain(|len| *len < whole);
    lens.iter()
        .filter_map(|len| Some((*name, bytes.get(..*len)?.to_vec())))
        .collect()
}

/// A torn object among everything issued, and among what a barrier covered.
fn torn_images(journal: &Journal, label: &str, name: ObjectName, bytes: &[u8]) -> [MemBackend; 2] {
    let mut issued = journal.durable().clone();
    for change in journal.pending() {
        change.apply(&mut issued);
    }
    let cases = [
        ("everything issued", issued),
        ("only what a barrier covered", journal.durable().clone()),
    ];
    cases.map(|(what, mut objects)| {
        objects.insert(name, Arc::new(bytes.to_vec()));
        let len = bytes.len();
        MemBackend::with_objects(&format!("{label}, torn at {len}: {what}"), objects)
    })
}

#[derive(Default)]
struct Found {
    seen: HashSet<blake3::Hash>,
    crashes: Crashes,
}

impl Found {
    fn add(&mut self, state: CrashState) {
        self.crashes.counted += 1;
        if self
            .seen
            .insert(fingerprint(&state.image.objects(), state.torn))
        {
            self.crashes.states.push(state);
        }
    }
}

/// Equal bytes are one allocation within a history, but for what is torn.
fn fingerprint(objects: &Objects, torn: Option<ObjectName>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in objects {
        hasher.update(name.path().as_bytes());
        if torn == Some(*name) {
            hasher.update(bytes);
        } else {
            hasher.update(&(Arc::as_ptr(bytes).addr() as u64).to_le_bytes());
        }
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            super::{Backend as _, ObjectKind},
            FaultBackend,
        },
        *,
    };

    /// Two entries of the log, of which a barrier covers the first.
    fn recorded() -> History {
        let store = FaultBackend::from(MemBackend::new());
        for (seq, bytes) in [(1, b"one".as_slice()), (2, b"other")] {
            let put = store.put_if_absent(&ObjectName::Log(seq), &[bytes]);
            let _ = put.unwrap();
            if seq == 1 {
                store.barrier(ObjectKind::Log).unwrap();
            }
        }
        store.history()
    }

    fn lens(state: &CrashState) -> Vec<usize> {
        let objects = state.image.objects();
        objects.values().map(|bytes| bytes.len()).collect()
    }

    #[test]
    fn every_moment_of_a_run_gives_its_images_once_and_the_last_moment_counts() {
        let history = recorded();
        assert_eq!(history.len(), 3);
        let crashes = history.crashes(Depth::QUICK);
        let whole = crashes.states.iter().filter(|state| state.torn.is_none());
        let whole: Vec<_> = whole.map(|state| (state.steps, lens(state))).collect();
        assert_eq!(whole, [(3, vec![3]), (3, vec![3, 5]), (1, vec![])]);
        // Moments 0 to 3 with 1, 2, 1 and 2 images; two tears of each put in two models.
        assert_eq!(crashes.counted, 6 + 8);
    }

    #[test]
    fn a_torn_write_leaves_its_beginning() {
        let crashes = recorded().crashes(Depth::FULL);
        let torn = crashes.states.iter().filter(|state| state.torn.is_some());
        let torn: Vec<_> = torn.map(|state| (state.steps, lens(state))).collect();
        let second = [0, 1, 2, 4].map(|len| (2, vec![3, len]));
        let first = [0, 1, 2].map(|len| (0, vec![len]));
        assert_eq!(torn, [second.as_slice(), &first].concat());
    }
}
