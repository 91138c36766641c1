//! The filter kernel: gear hashes of every window of a block, as four interleaved streams.
//!
//! Lives here: the one loop that touches every byte. Does not live here: what happens to a window
//! that passes (see `scan`), nor the meaning of hash and bound (see `gear`).
//!
//! One stream is held up by its own chain of shift and add; four chains side by side fill the core.
//! The hash of a window needs only its 64 bytes, so that a stream can start anywhere after 63 bytes
//! of warm-up. Must stay true: the hits are exactly the windows with `hash <= top`, in ascending
//! order.

use crate::gear::{Table, WINDOW, hash, roll};

const LANES: usize = 4;
/// Bytes of a window before its last one.
const WARM: usize = WINDOW - 1;
/// One hit in so many positions makes a block dense, unless a coarse filter lets that many through
/// on random data; with the default sizes random data has one in 1024.
const DENSE_ONE_IN: usize = 16;
/// Hits that even the shortest lane may have.
const DENSE_FLOOR: usize = 8;

/// More windows passed than the filter is meant to let through: constant or periodic bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dense;

/// Start offsets, within the block, of the windows that passed; one list per stream, kept for
/// reuse.
#[derive(Default)]
pub(crate) struct Hits {
    lanes: [Vec<u32>; LANES],
}

impl Hits {
    /// The offsets in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        self.lanes.iter().flatten().map(|&k| k as usize)
    }

    fn clear(&mut self, cap: usize) {
        for lane in &mut self.lanes {
            lane.clear();
            lane.reserve(cap);
        }
    }
}

/// Finds all `k` with `hash(block[k..k + 64]) <= top`. Blocks are far smaller than 4 GiB.
///
/// # Errors
/// [`Dense`] when a stream sees so many hits that judging each alone would be slow.
pub(crate) fn filter(table: &Table, top: u64, block: &[u8], hits: &mut Hits) -> Result<(), Dense> {
    let positions = block.len().saturating_sub(WARM);
    let step = positions / LANES;
    let cap = DENSE_FLOOR + step / dense_one_in(top);
    hits.clear(cap);
    let [lane0, lane1, lane2, lane3] = &mut hits.lanes;
    let fed = |lane: usize| block.get(lane * step + WARM..(lane + 1) * step + WARM);
    let warm = |lane: usize| block.get(lane * step..lane * step + WARM);
    let (Some(f0), Some(f1), Some(f2), Some(f3)) = (fed(0), fed(1), fed(2), fed(3)) else {
        return Ok(());
    };
    let [mut h0, mut h1, mut h2, mut h3] =
        [0, 1, 2, 3].map(|lane| hash(table, warm(lane).unwrap_or_default()));
    for (k, (((&b0, &b1), &b2), &b3)) in (0u32..).zip(f0.iter().zip(f1).zip(f2).zip(f3)) {
        h0 = roll(table, h0, b0);
        h1 = roll(table, h1, b1);
        h2 = roll(table, h2, b2);
        h3 = roll(table, h3, b3);
        // Compared once: three minima and one branch beat four branches by a fifth.
        if h0.min(h1).min(h2.min(h3)) <= top {
            note(lane0, h0 <= top, k, cap)?;
            note(lane1, h1 <= top, k, cap)?;
            note(lane2, h2 <= top, k, cap)?;
            note(lane3, h3 <= top, k, cap)?;
        }
    }
    // Up to three positions remain behind the last stream, which is warm for them.
    for (k, &byte) in (0u32..).zip(block.get(LANES * step + WARM..).unwrap_or_default()) {
        h3 = roll(table, h3, byte);
        let behind = u32::try_from(step).map_err(|_| Dense)?;
        note(lane3, h3 <= top, behind + k, cap + LANES)?;
    }
    let step = u32::try_from(step).map_err(|_| Dense)?;
    for (lane, list) in (0u32..).zip(&mut hits.lanes) {
        for k in list {
            *k += lane * step;
        }
    }
    Ok(())
}

/// At least four times what random data gives.
fn dense_one_in(top: u64) -> usize {
    let passes_one_in = 1usize << top.leading_zeros().min(16);
    (passes_one_in / 4).clamp(1, DENSE_ONE_IN)
}

#[inline]
fn note(lane: &mut Vec<u32>, hit: bool, k: u32, cap: usize) -> Result<(), Dense> {
    if !hit {
        return Ok(());
    }
    if lane.len() == cap {
        return Err(Dense);
    }
    lane.push(k);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;

    #[test]
    fn four_streams_find_what_one_finds_at_every_length() {
        let bytes = oracle::random(700, 7);
        let table: Table = std::array::from_fn(|i| {
            u64::from_le_bytes(oracle::random(8, 100 + i as u64).try_into().unwrap())
        });
        let top = u64::MAX >> 5;
        let mut hits = Hits::default();
        for len in 0..bytes.len() {
            let block = &bytes[..len];
            let expected: Vec<usize> = (0..(len + 1).saturating_sub(WINDOW))
                .filter(|&k| hash(&table, &block[k..k + WINDOW]) <= top)
                .collect();
            assert_eq!(
                filter(&table, top, block, &mut hits),
                Ok(()),
                "length {len}"
            );
            assert_eq!(hits.iter().collect::<Vec<_>>(), expected, "length {len}");
        }
    }

    #[test]
    fn a_block_of_hits_is_reported_as_dense() {
        let table: Table = [0; 256];
        let mut hits = Hits::default();
        assert_eq!(filter(&table, 0, &[0; 4096], &mut hits), Err(Dense));
        let few = WARM + LANES * DENSE_FLOOR;
        assert_eq!(filter(&table, 0, &vec![0; few], &mut hits), Ok(()));
        assert_eq!(hits.iter().count(), LANES * DENSE_FLOOR);
    }

    #[test]
    fn a_filter_that_lets_all_pass_is_never_dense() {
        let mut hits = Hits::default();
        assert_eq!(filter(&[0; 256], u64::MAX, &[0; 4096], &mut hits), Ok(()));
        assert_eq!(hits.iter().count(), 4096 - WARM);
    }
}
