//! Splitting floats, or their differences to a base, into byte planes and merging them back: the
//! inner loops of the plane and delta codecs.
//!
//! Here: the table of kernels and the choice among them at run time. The loops themselves are in
//! `portable`, compiled a second and third time for wider registers in `x86`. What a plane *means*
//! and how it is stored is `planes`' business.
//!
//! Must stay true: every kernel of every table computes exactly what the portable one does, for
//! every length; the choice can change speed only, never a byte.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

/// From floats of `W` bytes and their bases to planes.
pub(super) type Delta<const W: usize> = fn(&[[u8; W]], &[[u8; W]], [&mut [u8]; W]);

/// From planes and bases to floats of `W` bytes.
pub(super) type Undelta<const W: usize> = fn([&[u8]; W], &[[u8; W]], &mut [[u8; W]]);

/// One implementation of the loops. All slices of a call have the same number of elements.
pub(super) struct Kernels {
    /// What the loops were compiled for.
    pub(super) name: &'static str,
    /// Rotates each 16-bit value left by one bit and deals its bytes out to two planes.
    pub(super) split16: fn(&[[u8; 2]], [&mut [u8]; 2]),
    /// The inverse of `split16`.
    pub(super) merge16: fn([&[u8]; 2], &mut [[u8; 2]]),
    /// Rotates each 32-bit value left by one bit and deals its bytes out to four planes.
    pub(super) split32: fn(&[[u8; 4]], [&mut [u8]; 4]),
    /// The inverse of `split32`.
    pub(super) merge32: fn([&[u8]; 4], &mut [[u8; 4]]),
    /// Maps each 16-bit float and its base to numbers that grow with the float, takes the zig-zag
    /// of their difference, and deals its bytes out to two planes.
    pub(super) delta16: Delta<2>,
    /// The inverse of `delta16`, from planes and base.
    pub(super) undelta16: Undelta<2>,
    /// The same for 32-bit floats and four planes.
    pub(super) delta32: Delta<4>,
    /// The inverse of `delta32`.
    pub(super) undelta32: Undelta<4>,
}

impl Kernels {
    /// The fastest table this processor can run.
    pub(super) fn best() -> &'static Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(best) = x86::supported().next() {
            return best;
        }
        &portable::KERNELS
    }

    /// Every table this processor can run, fastest first.
    #[cfg(test)]
    pub(super) fn all() -> Vec<&'static Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        all.extend(x86::supported());
        all.push(&portable::KERNELS);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        })
        .take(len)
        .collect()
    }

    #[test]
    fn the_sign_of_a_bf16_lands_below_its_mantissa_and_the_exponent_is_alone() {
        // -1.5 is 0xBFC0: sign 1, exponent 0x7F, mantissa 0x40.
        for kernels in Kernels::all() {
            let (mut low, mut high) = ([0], [0]);
            (kernels.split16)(&[0xBFC0_u16.to_le_bytes()], [&mut low, &mut high]);
            assert_eq!((low, high), ([0x81], [0x7F]), "{}", kernels.name);
        }
    }

    #[test]
    fn the_sign_of_an_fp32_lands_below_its_mantissa_and_the_exponent_is_alone() {
        for kernels in Kernels::all() {
            let (mut a, mut b, mut c, mut d) = ([0], [0], [0], [0]);
            let planes = [&mut a[..], &mut b, &mut c, &mut d];
            (kernels.split32)(&[(-1.5_f32).to_le_bytes()], planes);
            assert_eq!([a, b, c, d], [[1], [0], [0x80], [0x7F]], "{}", kernels.name);
        }
    }

    #[test]
    fn every_16_bit_kernel_agrees_with_a_naive_loop_at_every_length() {
        let bytes = noise(2 * 700, 16);
        for kernels in Kernels::all() {
            for count in (0..300).chain([511, 512, 513, 700]) {
                let elements = &bytes.as_chunks::<2>().0[..count];
                let expected: Vec<[u8; 2]> = elements
                    .iter()
                    .map(|e| u16::from_le_bytes(*e).rotate_left(1).to_le_bytes())
                    .collect();
                let (mut low, mut high) = (vec![0; count], vec![0; count]);
                (kernels.split16)(elements, [&mut low, &mut high]);
                for (i, [l, h]) in expected.iter().enumerate() {
                    assert_eq!([low[i], high[i]], [*l, *h], "{} {count} {i}", kernels.name);
                }
                let mut back = vec![[0; 2]; count];
                (kernels.merge16)([&low, &high], &mut back);
                assert_eq!(back, elements, "{} {count}", kernels.name);
            }
        }
    }

    #[test]
    fn every_32_bit_kernel_agrees_with_a_naive_loop_at_every_length() {
        let bytes = noise(4 * 700, 32);
        for kernels in Kernels::all() {
            for count in (0..300).chain([511, 512, 513, 700]) {
                let elements = &bytes.as_chunks::<4>().0[..count];
                let mut planes = vec![vec![0; count]; 4];
                if let [a, b, c, d] = &mut planes[..] {
                    (kernels.split32)(elements, [a, b, c, d]);
                }
                for (i, element) in elements.iter().enumerate() {
                    let found = [planes[0][i], planes[1][i], planes[2][i], planes[3][i]];
                    let expected = u32::from_le_bytes(*element).rotate_left(1).to_le_bytes();
                    assert_eq!(found, expected, "{} {count} {i}", kernels.name);
                }
                let mut back = vec![[0; 4]; count];
                let all = [&planes[0][..], &planes[1], &planes[2], &planes[3]];
                (kernels.merge32)(all, &mut back);
                assert_eq!(back, elements, "{} {count}", kernels.name);
            }
        }
    }

    /// The documented mapping, with wider numbers than any kernel uses.
    fn zigzag_of(element: i64, base: i64, bits: u32) -> i64 {
        let ordered = |value: i64| {
            let half = 1_i64 << (bits - 1);
            if value < half {
                value
            } else {
                half - 1 - value
            }
        };
        let modulus = 1_i64 << bits;
        let step = (ordered(element) - ordered(base)).rem_euclid(modulus);
        if step < modulus / 2 {
            2 * step
        } else {
            2 * (modulus - step) - 1
        }
    }

    #[test]
    fn steps_between_neighbouring_floats_are_small_numbers() {
        let of = |x: f32, base: f32| {
            let bf16 = |x: f32| i64::from(x.to_bits() >> 16);
            zigzag_of(bf16(x), bf16(base), 16)
        };
        assert_eq!(of(1.0, 1.0), 0);
        assert_eq!(of(1.007_812_5, 1.0), 2);
        assert_eq!(of(1.0, 1.007_812_5), 1);
        assert_eq!(of(-1.007_812_5, -1.0), 1);
        assert_eq!(of(-0.0, 0.0), 1);
    }

    #[test]
    fn every_16_bit_delta_kernel_computes_the_documented_mapping_of_all_values() {
        let all: Vec<[u8; 2]> = (0..=u16::MAX).map(u16::to_le_bytes).collect();
        for kernels in Kernels::all() {
            for base in [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x3F80, 0xBF80, 0x7FC0] {
                let bases = vec![u16::to_le_bytes(base); all.len()];
                let (mut low, mut high) = (vec![0; all.len()], vec![0; all.len()]);
                (kernels.delta16)(&all, &bases, [&mut low, &mut high]);
                for (x, (low, high)) in (0..).zip(low.iter().zip(&high)) {
                    let found = i64::from(u16::from_le_bytes([*low, *high]));
                    let expected = zigzag_of(x, i64::from(base), 16);
                    assert_eq!(found, expected, "{} {x:#x} {base:#x}", kernels.name);
                }
                let mut back = vec![[0; 2]; all.len()];
                (kernels.undelta16)([&low, &high], &bases, &mut back);
                assert!(back == all, "{} {base:#x}", kernels.name);
            }
        }
    }

    #[test]
    fn every_delta_kernel_agrees_with_a_naive_loop_at_every_length() {
        let (bytes, base) = (noise(4 * 300, 5), noise(4 * 300, 6));
        for kernels in Kernels::all() {
            for count in 0..300 {
                let elements = &bytes.as_chunks::<4>().0[..count];
                let bases = &base.as_chunks::<4>().0[..count];
                let mut planes = vec![vec![0; count]; 4];
                if let [a, b, c, d] = &mut planes[..] {
                    (kernels.delta32)(elements, bases, [a, b, c, d]);
                }
                for (i, (element, base)) in elements.iter().zip(bases).enumerate() {
                    let found = [planes[0][i], planes[1][i], planes[2][i], planes[3][i]];
                    let wide = |bytes: &[u8; 4]| i64::from(u32::from_le_bytes(*bytes));
                    let expected = zigzag_of(wide(element), wide(base), 32);
                    assert_eq!(wide(&found), expected, "{} {count} {i}", kernels.name);
                }
                let mut back = vec![[0; 4]; count];
                let all = [&planes[0][..], &planes[1], &planes[2], &planes[3]];
                (kernels.undelta32)(all, bases, &mut back);
                assert_eq!(back, elements, "{} {count}", kernels.name);
                let (halves, halved) = (elements.as_flattened(), bases.as_flattened());
                let (halves, halved) = (halves.as_chunks::<2>().0, halved.as_chunks::<2>().0);
                let (mut low, mut high) = (vec![0; 2 * count], vec![0; 2 * count]);
                (kernels.delta16)(halves, halved, [&mut low, &mut high]);
                for (i, (element, base)) in halves.iter().zip(halved).enumerate() {
                    let wide = |bytes: [u8; 2]| i64::from(u16::from_le_bytes(bytes));
                    let expected = zigzag_of(wide(*element), wide(*base), 16);
                    let found = wide([low[i], high[i]]);
                    assert_eq!(found, expected, "{} {count} {i}", kernels.name);
                }
                let mut back = vec![[0; 2]; 2 * count];
                (kernels.undelta16)([&low, &high], halved, &mut back);
                assert_eq!(back, halves, "{} {count}", kernels.name);
            }
        }
    }
}
