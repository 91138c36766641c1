//! The plane loops in plain Rust, and the reference for all others.
//!
//! Each is one zipped loop without a bounds check or an early exit, which the compiler turns into
//! shuffles of whatever registers the surrounding function may use: 16 bytes wide here, 32 and 64
//! where `x86` inlines the same loops into functions with more features.
//!
//! Must stay true: `#[inline(always)]`, or the copies in `x86` gain nothing; no branch in a loop.

use super::Kernels;

/// Works everywhere.
pub(super) static KERNELS: Kernels = Kernels {
    name: "portable",
    split16,
    merge16,
    split32,
    merge32,
};

#[inline(always)]
pub(super) fn split16(elements: &[[u8; 2]], [low, high]: [&mut [u8]; 2]) {
    for ((element, low), high) in elements.iter().zip(low).zip(high) {
        [*low, *high] = u16::from_le_bytes(*element).rotate_left(1).to_le_bytes();
    }
}

#[inline(always)]
pub(super) fn merge16([low, high]: [&[u8]; 2], elements: &mut [[u8; 2]]) {
    for ((element, low), high) in elements.iter_mut().zip(low).zip(high) {
        *element = u16::from_le_bytes([*low, *high])
            .rotate_right(1)
            .to_le_bytes();
    }
}

#[inline(always)]
pub(super) fn split32(elements: &[[u8; 4]], [a, b, c, d]: [&mut [u8]; 4]) {
    for ((((element, a), b), c), d) in elements.iter().zip(a).zip(b).zip(c).zip(d) {
        [*a, *b, *c, *d] = u32::from_le_bytes(*element).rotate_left(1).to_le_bytes();
    }
}

#[inline(always)]
pub(super) fn merge32([a, b, c, d]: [&[u8]; 4], elements: &mut [[u8; 4]]) {
    for ((((element, a), b), c), d) in elements.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *element = u32::from_le_bytes([*a, *b, *c, *d])
            .rotate_right(1)
            .to_le_bytes();
    }
}
