//! What of a tree is wanted: include and exclude patterns, followed along a walk. Pure.

use super::RestoreOptions;
use crate::{
    error::Result,
    source::pattern::{self, Case, Patterns},
};

/// Compiled patterns.
pub(super) struct Selection {
    /// Case sensitive and folded.
    include: [Patterns; 2],
    exclude: [Patterns; 2],
    takes_all: bool,
}

/// How far the patterns got along a path.
#[derive(Clone, Default)]
pub(super) struct Progress {
    include: [pattern::Progress; 2],
    exclude: [pattern::Progress; 2],
}

/// What is to become of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// It is restored.
    pub(super) wanted: bool,
    /// Something below it may be.
    pub(super) descend: bool,
}

impl Selection {
    pub(super) fn compile(options: &RestoreOptions) -> Result<Self> {
        let include = [
            Patterns::compile(&options.include, Case::Sensitive)?,
            Patterns::compile(&options.iinclude, Case::Folded)?,
        ];
        let exclude = [
            Patterns::compile(&options.exclude, Case::Sensitive)?,
            Patterns::compile(&options.iexclude, Case::Folded)?,
        ];
        let takes_all = include.iter().all(Patterns::is_empty);
        Ok(Self {
            include,
            exclude,
            takes_all,
        })
    }

    pub(super) fn start(&self) -> Progress {
        Progress {
            include: self.include.each_ref().map(Patterns::start),
            exclude: self.exclude.each_ref().map(Patterns::start),
        }
    }

    pub(super) fn step(&self, from: &Progress, name: &[u8]) -> Progress {
        let mut into = Progress::default();
        let lists = self.include.iter().chain(&self.exclude);
        let from = from.include.iter().chain(&from.exclude);
        let places = into.include.iter_mut().chain(&mut into.exclude);
        for ((list, from), into) in lists.zip(from).zip(places) {
            if !list.is_empty() {
                list.step_into(from, name, into);
            }
        }
        into
    }

    pub(super) fn choose(&self, at: &Progress) -> Choice {
        let mut excludes = self.exclude.iter().zip(&at.exclude);
        if excludes.any(|(list, at)| list.is_matched(at)) {
            return Choice {
                wanted: false,
                descend: false,
            };
        }
        let mut choice = Choice {
            wanted: self.takes_all,
            descend: self.takes_all,
        };
        for (list, at) in self.include.iter().zip(&at.include) {
            if !list.is_empty() {
                let verdict = list.verdict(at);
                choice.wanted |= verdict.matched;
                choice.descend |= verdict.matched || verdict.may_match_below;
            }
        }
        choice
    }
}
