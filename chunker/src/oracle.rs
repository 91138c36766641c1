//! The slow, obviously right chunker, and the seeded content that tests run on.
//!
//! Lives here: the rule of `gear` and `chunker` written down once more, each window on its own,
//! with no rolling, no streams, no memory. Must stay true: it shares with the real thing no more
//! than the derived table, the PRF key and the two limits, which golden cuts pin.

use aes::Aes128;
use aes::cipher::{Block, BlockCipherEncrypt};
use proptest::prelude::*;

use crate::gear::{Gear, WINDOW};
use crate::params::{ChunkerKind, ChunkerParams};
use crate::{Chunker, fuzz};

/// Bytes that depend on the seed alone (SplitMix64).
pub(crate) fn random(len: usize, seed: u64) -> Vec<u8> {
    fuzz::random(len, seed)
}

/// The rule, window by window.
pub(crate) fn candidates(gear: &Gear, data: &[u8]) -> Vec<usize> {
    (WINDOW..=data.len())
        .filter(|&end| is_candidate(gear, &data[end - WINDOW..end]))
        .collect()
}

fn is_candidate(gear: &Gear, window: &[u8]) -> bool {
    let mut hash = 0u64;
    for (i, &byte) in window.iter().enumerate() {
        let entry = gear.table()[usize::from(byte)];
        hash = hash.wrapping_add(entry.wrapping_mul(1 << (63 - i)));
    }
    if hash > gear.top() {
        return false;
    }
    let mut mac = Block::<Aes128>::default();
    for block in window.chunks(16) {
        for (m, b) in mac.iter_mut().zip(block) {
            *m ^= b;
        }
        gear.prf().encrypt_block(&mut mac);
    }
    u64::from_le_bytes(mac[..8].try_into().unwrap()) < gear.threshold()
}

/// The cuts of a whole content.
pub(crate) fn cuts(chunker: &Chunker, data: &[u8]) -> Vec<usize> {
    let gear = chunker.gear().expect("an oracle for gear only");
    let (min, max) = (chunker.params().min(), chunker.params().max());
    let candidates = candidates(gear, data);
    let mut cuts = Vec::new();
    let mut start = 0;
    while start < data.len() {
        let most = data.len().min(start + max);
        let first = candidates
            .iter()
            .copied()
            .find(|&end| end >= start + min && end <= most);
        start = first.unwrap_or(most);
        cuts.push(start);
    }
    cuts
}

/// A rule and bytes which, repeated, give a candidate in every period.
pub(crate) struct DenseKey {
    pub(crate) gear: Gear,
    pub(crate) unit: Vec<u8>,
}

/// Searches keys in order, so that it always gives the same.
pub(crate) fn dense_key(period: usize) -> DenseKey {
    let params = ChunkerParams::new(64, 1024, 4096).unwrap();
    let unit = random(period, 11);
    let whole: Vec<u8> = unit
        .iter()
        .copied()
        .cycle()
        .take(period + WINDOW - 1)
        .collect();
    for seed in 0u64.. {
        let gear = Gear::new(&params, &key(seed));
        if !candidates(&gear, &whole).is_empty() {
            return DenseKey { gear, unit };
        }
    }
    unreachable!("one key in a thousand will do")
}

pub(crate) fn key(seed: u64) -> [u8; 32] {
    random(32, seed).try_into().unwrap()
}

/// A chunker with chunks small enough that small content has many.
pub(crate) fn small(kind: ChunkerKind) -> Chunker {
    Chunker::new(kind, ChunkerParams::new(64, 256, 1024).unwrap(), &key(1))
}

/// Content made of random, constant, periodic and repeated stretches.
pub(crate) fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = (0..4u8, 1..3000usize, any::<u64>(), 1..200usize);
    prop::collection::vec(piece, 0..8).prop_map(|pieces| {
        let mut data: Vec<u8> = Vec::new();
        for (kind, len, seed, period) in pieces {
            match kind {
                0 => data.extend(random(len, seed)),
                1 => data.extend(vec![seed.to_le_bytes()[0]; len]),
                2 => data.extend(random(period, seed).iter().cycle().take(len)),
                _ => data.extend_from_within(data.len().saturating_sub(len)..),
            }
        }
        data
    })
}
