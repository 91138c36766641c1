//! A set of pack numbers of one table: those that do not count.

use crate::format::cursor::to_usize;

/// A set of small numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Mask {
    words: Vec<u64>,
}

impl Mask {
    /// The empty set.
    pub(super) const fn new() -> Self {
        Self { words: Vec::new() }
    }

    /// Adds a number; true where it is new.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let word = to_usize(number / 64);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let bit = 1 << (number % 64);
        self.words.get_mut(word).is_some_and(|word| {
            let fresh = *word & bit == 0;
            *word |= bit;
            fresh
        })
    }

    /// Whether the number is in the set.
    pub(super) fn contains(&self, number: u32) -> bool {
        let word = self.words.get(to_usize(number / 64));
        word.is_some_and(|word| word & (1 << (number % 64)) != 0)
    }
}
