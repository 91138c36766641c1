//! Rules broken on purpose, so that the simulation can show that it notices. A [`Mutant`] is asked
//! for by name at the place of its rule; in the program nobody can turn one on, and the question
//! is answered by a constant.

/// A rule that is not kept.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// A snapshot is committed where the index knew a copy of everything, swept meanwhile or not.
    CommitTrustsIndex,
    /// What a snapshot relies on is checked on the first prefix only, not on the one it follows.
    CommitChecksOnce,
    /// A snapshot is committed although the one whose content it took over is gone.
    ParentUnchecked,
    /// Packs are deleted before the sweep that names them is in the log.
    DeletedBeforeSwept,
    /// A sweep is appended to whatever prefix there is, checked or not.
    SweepUnchecked,
    /// A prune takes it for enough that a copy of a blob exists, whatever that rests on.
    CopySuffices,
    /// A snapshot does not rely on the packs of the bases that its deltas rest on.
    BasesUnrelied,
}

#[cfg(any(test, feature = "testing"))]
impl crate::repository::Repository {
    /// The same repository, with a rule broken.
    #[doc(hidden)]
    #[must_use]
    pub fn with_mutant(mut self, mutant: Option<Mutant>) -> Self {
        self.mutant = mutant;
        self
    }
}
