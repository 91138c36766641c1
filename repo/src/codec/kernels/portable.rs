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
    delta16,
    undelta16,
    delta32,
    undelta32,
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

/// Sign and magnitude as a number that grows with the float: negative ones fall in reverse.
#[inline(always)]
fn ordered16(bits: u16) -> u16 {
    let negative = (bits >> 15).wrapping_neg();
    bits ^ (negative | 0x8000)
}

/// The inverse of [`ordered16`].
#[inline(always)]
fn unordered16(number: u16) -> u16 {
    let negative = (number >> 15).wrapping_sub(1);
    number ^ (negative | 0x8000)
}

#[inline(always)]
fn ordered32(bits: u32) -> u32 {
    let negative = (bits >> 31).wrapping_neg();
    bits ^ (negative | 0x8000_0000)
}

#[inline(always)]
fn unordered32(number: u32) -> u32 {
    let negative = (number >> 31).wrapping_sub(1);
    number ^ (negative | 0x8000_0000)
}

#[inline(always)]
pub(super) fn delta16(elements: &[[u8; 2]], base: &[[u8; 2]], [low, high]: [&mut [u8]; 2]) {
    for (((element, base), low), high) in elements.iter().zip(base).zip(low).zip(high) {
        let base = ordered16(u16::from_le_bytes(*base));
        let step = ordered16(u16::from_le_bytes(*element)).wrapping_sub(base);
        // Zig-zag: small steps of either sign are small numbers.
        let zigzag = (step << 1) ^ (step >> 15).wrapping_neg();
        [*low, *high] = zigzag.to_le_bytes();
    }
}

#[inline(always)]
pub(super) fn undelta16([low, high]: [&[u8]; 2], base: &[[u8; 2]], elements: &mut [[u8; 2]]) {
    for (((element, base), low), high) in elements.iter_mut().zip(base).zip(low).zip(high) {
        let zigzag = u16::from_le_bytes([*low, *high]);
        let step = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        let base = ordered16(u16::from_le_bytes(*base));
        *element = unordered16(base.wrapping_add(step)).to_le_bytes();
    }
}

#[inline(always)]
pub(super) fn delta32(elements: &[[u8; 4]], base: &[[u8; 4]], [a, b, c, d]: [&mut [u8]; 4]) {
    let planes = a.iter_mut().zip(b).zip(c).zip(d);
    for ((element, base), (((a, b), c), d)) in elements.iter().zip(base).zip(planes) {
        let base = ordered32(u32::from_le_bytes(*base));
        let step = ordered32(u32::from_le_bytes(*element)).wrapping_sub(base);
        let zigzag = (step << 1) ^ (step >> 31).wrapping_neg();
        [*a, *b, *c, *d] = zigzag.to_le_bytes();
    }
}

#[inline(always)]
pub(super) fn undelta32([a, b, c, d]: [&[u8]; 4], base: &[[u8; 4]], elements: &mut [[u8; 4]]) {
    let planes = a.iter().zip(b).zip(c).zip(d);
    for ((element, base), (((a, b), c), d)) in elements.iter_mut().zip(base).zip(planes) {
        let zigzag = u32::from_le_bytes([*a, *b, *c, *d]);
        let step = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
        let base = ordered32(u32::from_le_bytes(*base));
        *element = unordered32(base.wrapping_add(step)).to_le_bytes();
    }
}
