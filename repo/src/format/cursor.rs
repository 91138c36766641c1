//! A reader over untrusted bytes that cannot panic and refuses bytes left over, and the plain
//! appending functions for the other direction. Numbers are little-endian with fixed widths.

use super::DecodeError;

/// Reads a structure front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// Starts reading `bytes`; errors speak of `what`.
    #[must_use]
    pub const fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let truncated = DecodeError::Truncated { what: self.what };
        let (head, tail) = self.rest.split_at_checked(len).ok_or(truncated)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes as an array.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] where fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let truncated = DecodeError::Truncated { what: self.what };
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next two bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next four bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as a number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next eight bytes as a signed number.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] at the end.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A `u32` of at most `max`; `what` names the field.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] above `max`, [`DecodeError::Truncated`] at the end.
    pub fn u32_up_to(&mut self, max: u32, what: &'static str) -> Result<u32, DecodeError> {
        let value = self.u32()?;
        if value > max {
            return Err(DecodeError::OutOfRange {
                what,
                value: u64::from(value),
            });
        }
        Ok(value)
    }

    /// Bytes behind a `u32` length of at most `max`.
    ///
    /// # Errors
    /// [`DecodeError::OutOfRange`] above `max`, [`DecodeError::Truncated`] at the end.
    pub fn bytes(&mut self, max: u32, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32_up_to(max, what)?;
        self.take(to_usize(len))
    }

    /// Checks magic bytes.
    ///
    /// # Errors
    /// [`DecodeError::BadMagic`] where they differ, [`DecodeError::Truncated`] at the end.
    pub fn magic(&mut self, magic: &[u8]) -> Result<(), DecodeError> {
        if self.take(magic.len())? == magic {
            return Ok(());
        }
        Err(DecodeError::BadMagic { what: self.what })
    }

    /// Checks the version byte.
    ///
    /// # Errors
    /// [`DecodeError::UnknownVersion`] for any but 1, [`DecodeError::Truncated`] at the end.
    pub fn version(&mut self) -> Result<(), DecodeError> {
        match self.u8()? {
            super::VERSION => Ok(()),
            found => Err(DecodeError::UnknownVersion {
                what: self.what,
                found,
            }),
        }
    }

    /// Everything not yet read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] where bytes are left over.
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing {
            what: self.what,
            extra: self.rest.len(),
        })
    }
}

/// A `u32` as a `usize`: this program runs on machines where it fits.
#[must_use]
pub const fn to_usize(value: u32) -> usize {
    const { assert!(usize::BITS >= 32) };
    value as usize
}

/// A length as a `u32`.
///
/// # Errors
/// [`DecodeError::OutOfRange`] naming `what` where it does not fit.
pub fn to_u32(len: usize, what: &'static str) -> Result<u32, DecodeError> {
    let error = DecodeError::OutOfRange {
        what,
        value: u64::try_from(len).unwrap_or(u64::MAX),
    };
    u32::try_from(len).map_err(|_| error)
}

/// Appends `bytes` behind their length as a `u32`.
///
/// # Errors
/// [`DecodeError::OutOfRange`] naming `what` where there are 4 GiB of them.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8], what: &'static str) -> Result<(), DecodeError> {
    out.extend_from_slice(&to_u32(bytes.len(), what)?.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_past_the_end_and_leaving_bytes_are_errors() {
        let mut reader = Reader::new(&[1, 2, 0, 3, 0, 0, 0], "x");
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(
            reader.clone().finish(),
            Err(DecodeError::Trailing {
                what: "x",
                extra: 4
            })
        );
        assert_eq!(reader.u64(), Err(DecodeError::Truncated { what: "x" }));
        assert_eq!(
            reader.u32_up_to(2, "y"),
            Err(DecodeError::OutOfRange {
                what: "y",
                value: 3
            })
        );
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn a_length_beyond_the_bytes_is_refused_before_anything_is_allocated() {
        let mut reader = Reader::new(&[255, 255, 255, 255], "x");
        assert_eq!(
            reader.bytes(u32::MAX, "y"),
            Err(DecodeError::Truncated { what: "x" })
        );
    }

    #[test]
    fn another_kind_of_file_is_told_from_one_that_is_cut_short() {
        let magic = |bytes: &[u8]| Reader::new(bytes, "x").magic(b"STRONG");
        assert_eq!(magic(b"STRONG and more"), Ok(()));
        assert_eq!(magic(b"STRANGE"), Err(DecodeError::BadMagic { what: "x" }));
        assert_eq!(magic(b"STRO"), Err(DecodeError::Truncated { what: "x" }));
    }
}
