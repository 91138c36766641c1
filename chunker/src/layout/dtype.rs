//! Types of the elements of a tensor, under the names that the file formats give them.
//!
//! Lives here: [`Dtype`], its sizes, and its name for people. Does not live here: how a format
//! spells a type.
//!
//! Must stay true: the tag of a type is part of a tensor's identity and never changes its meaning.

/// Type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754 binary64.
    F64,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// One byte, 4 exponent bits, 3 mantissa bits.
    F8E4m3,
    /// One byte, 5 exponent bits, 2 mantissa bits.
    F8E5m2,
    /// One byte, exponent only.
    F8E8m0,
    /// Six bits, 2 of them exponent.
    F6E2m3,
    /// Six bits, 3 of them exponent.
    F6E3m2,
    /// Four bits.
    F4,
    /// Two binary32.
    C64,
    /// Two binary64.
    C128,
    /// Signed, 8 bytes.
    I64,
    /// Signed, 4 bytes.
    I32,
    /// Signed, 2 bytes.
    I16,
    /// Signed byte.
    I8,
    /// Unsigned, 8 bytes.
    U64,
    /// Unsigned, 4 bytes.
    U32,
    /// Unsigned, 2 bytes.
    U16,
    /// Unsigned byte.
    U8,
    /// One byte, 0 or 1.
    Bool,
    /// Blocks of quantised elements, by the number that GGUF gives the type.
    Quantised(u8),
    /// A name that this version does not know; its size is taken from the offsets alone.
    Unknown,
}

impl Dtype {
    /// Bits of one element, where known and the same for each.
    #[must_use]
    pub const fn bits(self) -> Option<u8> {
        match self {
            Self::C128 => Some(128),
            Self::F64 | Self::C64 | Self::I64 | Self::U64 => Some(64),
            Self::F32 | Self::I32 | Self::U32 => Some(32),
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => Some(16),
            Self::F8E4m3 | Self::F8E5m2 | Self::F8E8m0 | Self::I8 | Self::U8 | Self::Bool => {
                Some(8)
            }
            Self::F6E2m3 | Self::F6E3m2 => Some(6),
            Self::F4 => Some(4),
            Self::Quantised(_) | Self::Unknown => None,
        }
    }

    /// Bytes of one element; 1 where elements are smaller than a byte or of unknown type.
    #[must_use]
    pub const fn element_size(self) -> u8 {
        match self.bits() {
            Some(bits) if bits >= 8 => bits / 8,
            Some(_) | None => 1,
        }
    }

    /// The name for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F8E4m3 => "f8_e4m3",
            Self::F8E5m2 => "f8_e5m2",
            Self::F8E8m0 => "f8_e8m0",
            Self::F6E2m3 => "f6_e2m3",
            Self::F6E3m2 => "f6_e3m2",
            Self::F4 => "f4",
            Self::C64 => "c64",
            Self::C128 => "c128",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::I16 => "i16",
            Self::I8 => "i8",
            Self::U64 => "u64",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::Bool => "bool",
            Self::Quantised(kind) => super::gguf::type_name(kind),
            Self::Unknown => "unknown",
        }
    }

    /// Two bytes that stand for the type in a tensor's identity.
    pub(super) const fn tag(self) -> [u8; 2] {
        let tag = match self {
            Self::F64 => 1,
            Self::F32 => 2,
            Self::F16 => 3,
            Self::Bf16 => 4,
            Self::F8E4m3 => 5,
            Self::F8E5m2 => 6,
            Self::F8E8m0 => 7,
            Self::F6E2m3 => 8,
            Self::F6E3m2 => 9,
            Self::F4 => 10,
            Self::C64 => 11,
            Self::C128 => 12,
            Self::I64 => 13,
            Self::I32 => 14,
            Self::I16 => 15,
            Self::I8 => 16,
            Self::U64 => 17,
            Self::U32 => 18,
            Self::U16 => 19,
            Self::U8 => 20,
            Self::Bool => 21,
            Self::Quantised(kind) => return [22, kind],
            Self::Unknown => 0,
        };
        [tag, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_takes_whole_bytes_or_counts_as_one() {
        assert_eq!(Dtype::Bf16.element_size(), 2);
        assert_eq!(Dtype::C64.element_size(), 8);
        assert_eq!(Dtype::C128.element_size(), 16);
        assert_eq!(Dtype::F4.element_size(), 1);
        assert_eq!(Dtype::Unknown.element_size(), 1);
        assert_eq!(Dtype::Quantised(12).element_size(), 1);
    }
}
