//! Which packs to read: all, a fixed part so that several runs cover everything, or a random
//! choice.

use crate::id::PackId;

/// Which packs a check reads whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadData {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// Every pack that falls into part `nth`, from 1, of `of`: the parts cover everything.
    Part {
        /// Which part, from 1.
        nth: u64,
        /// Of how many.
        of: u64,
    },
    /// So many millionths of all packs, at random; at least one.
    Millionths(u32),
    /// Random packs of so many bytes together; at least one.
    Bytes(u64),
}

impl ReadData {
    /// Chooses among packs given with their lengths; `seed` makes the choice, where it is random.
    #[must_use]
    pub(super) fn choose<T>(
        self,
        mut packs: Vec<T>,
        about: impl Fn(&T) -> (PackId, u64),
        seed: &[u8; 32],
    ) -> Vec<T> {
        let rank = |pack: &T| *blake3::keyed_hash(seed, about(pack).0.as_bytes()).as_bytes();
        match self {
            Self::Nothing => packs.clear(),
            Self::All => {}
            Self::Part { nth, of } => {
                let wanted = nth.saturating_sub(1);
                packs.retain(|pack| part_of(&about(pack).0, of) == wanted);
            }
            Self::Millionths(millionths) => {
                packs.sort_by_cached_key(rank);
                let all = u128::try_from(packs.len()).unwrap_or(u128::MAX);
                let count = (all * u128::from(millionths)).div_ceil(1_000_000).max(1);
                packs.truncate(usize::try_from(count).unwrap_or(usize::MAX));
            }
            Self::Bytes(most) => {
                packs.sort_by_cached_key(rank);
                let mut sum = 0_u64;
                let mut first = true;
                packs.retain(|pack| {
                    let grown = sum.saturating_add(about(pack).1);
                    let fits = grown <= most || std::mem::take(&mut first);
                    if fits {
                        (sum, first) = (grown, false);
                    }
                    fits
                });
            }
        }
        packs
    }
}

fn part_of(pack: &PackId, of: u64) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *pack.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h]) % of.max(1)
}
