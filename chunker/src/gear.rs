//! The definition of a candidate: what makes a position a place where a chunk may end.
//!
//! Lives here: the secret table and the secret PRF key with their derivation, the gear hash, the
//! filter bound, the PRF and its threshold. Does not live here: how many positions are looked at,
//! in which order, or which candidates become cuts.
//!
//! Must stay true: the verdict on a position is a function of the 64 bytes that end there, the key
//! and the three sizes, and of nothing else. It is part of the repository format.
//!
//! # Gear, version 1
//!
//! Integers are unsigned, 64 bits wide, wrap, and are little-endian where they meet bytes. `K` is
//! the 32-byte chunking key; `min`, `avg`, `max` are the sizes of the repository. `DK(context, K)`
//! is `derive_key` mode of BLAKE3.
//!
//! ```text
//! T[0..256]   = the first 2048 bytes of DK("strongroom v1 gear table", K) read as 256 integers
//! P           = the first 16 bytes of DK("strongroom v1 gear prf", K), an AES-128 key
//!
//! span        = avg - min
//! F           = min(10, max(0, floor(log2(span)) - 4))
//! bound       = 2^(64 - F)                      (F = 0: every hash is below it)
//! threshold   = floor(2^(64 + F) / span)        (always below 2^64)
//!
//! for a window w[0..64] of 64 consecutive bytes of one content:
//!   h(w)      = sum over i of T[w[i]] * 2^(63 - i)   mod 2^64
//!   m(w)      = x4 where x0 = 0^128, xj = AES-128(P, x(j-1) XOR w[16(j-1) .. 16j])
//!   r(w)      = the first 8 bytes of m(w) as an integer
//!   candidate = h(w) < bound  and  r(w) < threshold
//! ```
//!
//! A window that ends with byte `i` of the content makes `i + 1` a *candidate end offset*: a chunk
//! may end there, with byte `i` as its last. The first 63 end offsets of a content have no window
//! and are never candidates. On random data a position is a candidate with probability `1 / span`.
//!
//! Why two steps: the hash is cheap and only thins positions out (1/1024 of them pass with the
//! default sizes); the decision is that of a PRF over the whole window, so that chunk sizes that an
//! observer can see say nothing about the key ("universal hash, then PRF": Truong et al., CCS 2025,
//! ePrint 2025/558; attacks on hash-only rules: Alexeev et al., ePrint 2025/532). CBC-MAC over a
//! fixed number of blocks is a PRF.

use aes::Aes128;
use aes::cipher::{Array, Block, BlockCipherEncrypt, KeyInit};
use zeroize::{Zeroize, Zeroizing};

use crate::params::ChunkerParams;

/// Bytes that a verdict depends on.
pub const WINDOW: usize = 64;

/// Windows that one call of [`Gear::judge`] takes: enough to keep an AES unit busy.
pub(crate) const BATCH: usize = 32;

const TABLE_CONTEXT: &str = "strongroom v1 gear table";
const PRF_CONTEXT: &str = "strongroom v1 gear prf";
const MAX_FILTER_BITS: u32 = 10;
/// The filter lets at least 2^4 times as many positions through as become candidates.
const FILTER_SLACK_BITS: u32 = 4;

/// One table entry per byte value.
pub(crate) type Table = [u64; 256];

/// The keyed rule that decides about single windows.
pub(crate) struct Gear {
    table: Box<Zeroizing<Table>>,
    prf: Aes128,
    /// The largest hash that passes the filter (`bound - 1`, which exists also for `F = 0`).
    top: u64,
    threshold: u64,
    span: usize,
}

impl Gear {
    /// Derives table and PRF key from the chunking key, and the two limits from the sizes.
    pub(crate) fn new(params: &ChunkerParams, key: &[u8; 32]) -> Self {
        let span = params.avg() - params.min();
        let filter_bits = filter_bits(span as u64);
        Self {
            table: derive_table(key),
            prf: derive_prf(key),
            top: u64::MAX >> filter_bits,
            threshold: threshold(span as u64, filter_bits),
            span,
        }
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// The largest hash that passes the filter.
    pub(crate) const fn top(&self) -> u64 {
        self.top
    }

    /// Mean distance of candidates in random data.
    pub(crate) const fn span(&self) -> usize {
        self.span
    }

    #[cfg(test)]
    pub(crate) const fn prf(&self) -> &Aes128 {
        &self.prf
    }

    #[cfg(test)]
    pub(crate) const fn threshold(&self) -> u64 {
        self.threshold
    }

    /// The PRF's verdict on one window.
    pub(crate) fn accepts(&self, window: &[u8; WINDOW]) -> bool {
        let mut verdict = [false];
        self.judge(&[window], &mut verdict);
        verdict == [true]
    }

    /// The PRF's verdict on up to [`BATCH`] windows, side by side. Windows beyond that are ignored.
    pub(crate) fn judge(&self, windows: &[&[u8; WINDOW]], verdicts: &mut [bool]) {
        let mut macs = [Block::<Aes128>::default(); BATCH];
        let count = windows.len().min(BATCH);
        let (macs, _) = macs.split_at_mut(count);
        for step in 0..WINDOW / 16 {
            for (mac, window) in macs.iter_mut().zip(windows) {
                let (blocks, _) = window.as_chunks::<16>();
                let Some(block) = blocks.get(step) else {
                    continue;
                };
                let mixed = u128::from_ne_bytes(mac.0) ^ u128::from_ne_bytes(*block);
                mac.0 = mixed.to_ne_bytes();
            }
            self.prf.encrypt_blocks(macs);
        }
        for (verdict, mac) in verdicts.iter_mut().zip(macs) {
            let mac: [u8; 16] = (*mac).into();
            let mac = u128::from_le_bytes(mac);
            *verdict = mac & u128::from(u64::MAX) < u128::from(self.threshold);
        }
    }
}

/// One step of the hash: what leaves the window is shifted out at the top.
#[inline]
pub(crate) const fn roll(table: &Table, hash: u64, byte: u8) -> u64 {
    #[expect(
        clippy::indexing_slicing,
        reason = "a byte always indexes a table of 256"
    )]
    let entry = table[byte as usize];
    (hash << 1).wrapping_add(entry)
}

/// The hash of the bytes given; only the last 64 of them count.
#[inline]
pub(crate) fn hash(table: &Table, bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |hash, &byte| roll(table, hash, byte))
}

fn filter_bits(span: u64) -> u32 {
    span.ilog2()
        .saturating_sub(FILTER_SLACK_BITS)
        .min(MAX_FILTER_BITS)
}

fn threshold(span: u64, filter_bits: u32) -> u64 {
    let wide = (1u128 << (64 + filter_bits)) / u128::from(span);
    // span >= 2 (sizes are even and ascend) and span >= 2^filter_bits * 16 or filter_bits = 0, so
    // the quotient is below 2^64 and the conversion never saturates.
    u64::try_from(wide).unwrap_or(u64::MAX)
}

fn derive_table(key: &[u8; 32]) -> Box<Zeroizing<Table>> {
    let mut bytes = Zeroizing::new([0u8; 256 * 8]);
    let mut hasher = blake3::Hasher::new_derive_key(TABLE_CONTEXT);
    hasher.update(key);
    hasher.finalize_xof().fill(bytes.as_mut_slice());
    hasher.zeroize();
    let mut table = Box::new(Zeroizing::new([0u64; 256]));
    for (entry, word) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *entry = u64::from_le_bytes(*word);
    }
    table
}

fn derive_prf(key: &[u8; 32]) -> Aes128 {
    let derived = Zeroizing::new(blake3::derive_key(PRF_CONTEXT, key));
    let mut prf_key = Array::default();
    for (to, from) in prf_key.iter_mut().zip(derived.iter()) {
        *to = *from;
    }
    let prf = Aes128::new(&prf_key);
    prf_key.zeroize();
    prf
}
