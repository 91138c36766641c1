//! The numbers that fix where chunks may end, and the names of the two algorithms.
//!
//! Lives here: the only constructor of [`ChunkerParams`] and every bound on it. Does not live here:
//! anything that looks at bytes.
//!
//! Must stay true: a value of [`ChunkerParams`] suits both algorithms, so that no other file of
//! this crate has to check a size again; the parameters are part of the repository format, so that
//! a bound may be widened later but a value once accepted stays accepted.

use thiserror::Error;

use crate::gear::WINDOW;

/// Smallest `min`: the window of a cut has to lie within its chunk.
const MIN_MIN: usize = WINDOW;
/// Largest `min`.
const MIN_MAX: usize = 1 << 20;
/// Smallest average.
const AVG_MIN: usize = 256;
/// Largest average.
const AVG_MAX: usize = 4 << 20;
/// Smallest `max`.
const MAX_MIN: usize = 1024;
/// Largest `max`, and so the largest chunk that any chunker of this crate ever cuts.
const MAX_MAX: usize = 16 << 20;

/// Which algorithm decides the cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChunkerKind {
    /// The native chunker: gear filter, cut decided by a keyed PRF, scannable in parallel.
    Gear = 1,
    /// `FastCDC` 2020 by the crate of that name, with a seed derived from the key.
    FastCdc = 2,
}

/// A byte that names no chunker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("unknown chunker {0}")]
pub struct UnknownChunker(pub u8);

impl TryFrom<u8> for ChunkerKind {
    type Error = UnknownChunker;

    fn try_from(value: u8) -> Result<Self, UnknownChunker> {
        match value {
            1 => Ok(Self::Gear),
            2 => Ok(Self::FastCdc),
            other => Err(UnknownChunker(other)),
        }
    }
}

impl From<ChunkerKind> for u8 {
    fn from(kind: ChunkerKind) -> Self {
        match kind {
            ChunkerKind::Gear => 1,
            ChunkerKind::FastCdc => 2,
        }
    }
}

/// Why three sizes are no chunker parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ParamsError {
    /// A size lies outside its own bounds.
    #[error("chunk size {name} = {value} is outside {least}..={most}")]
    OutOfRange {
        /// `min`, `avg` or `max`.
        name: &'static str,
        /// What was asked for, in bytes.
        value: usize,
        /// Least allowed, in bytes.
        least: usize,
        /// Most allowed, in bytes.
        most: usize,
    },
    /// A size is odd; `FastCDC` 2020 rolls two bytes at a time.
    #[error("chunk size {name} = {value} is odd")]
    Odd {
        /// `min`, `avg` or `max`.
        name: &'static str,
        /// What was asked for, in bytes.
        value: usize,
    },
    /// The average is not a power of two.
    #[error("average chunk size {avg} is not a power of two")]
    AverageNotPowerOfTwo {
        /// What was asked for, in bytes.
        avg: usize,
    },
    /// The sizes are not strictly ascending.
    #[error("chunk sizes must ascend: min {min}, average {avg}, max {max}")]
    NotAscending {
        /// Asked minimum, in bytes.
        min: usize,
        /// Asked average, in bytes.
        avg: usize,
        /// Asked maximum, in bytes.
        max: usize,
    },
    /// The maximum cuts off so much of the distribution that the average would be a lie.
    #[error("max chunk size {max} is too near to the average: at least {least} is needed")]
    MaxTooNear {
        /// Asked maximum, in bytes.
        max: usize,
        /// Least maximum for this min and average, in bytes.
        least: usize,
    },
}

/// Minimum, average and maximum chunk size in bytes; always valid for both algorithms.
///
/// ```
/// use strongroom_chunker::ChunkerParams;
///
/// let params = ChunkerParams::new(16 << 10, 64 << 10, 256 << 10)?;
/// assert_eq!(params.avg(), 65_536);
/// assert!(ChunkerParams::new(16 << 10, 65_000, 256 << 10).is_err());
/// # Ok::<(), strongroom_chunker::ParamsError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkerParams {
    min: usize,
    avg: usize,
    max: usize,
}

impl ChunkerParams {
    /// Largest chunk that any valid parameters allow, in bytes.
    pub const LARGEST_CHUNK: usize = MAX_MAX;

    /// Checks three sizes in bytes.
    ///
    /// `max - min >= 3 * (avg - min)` is asked for because the mean size on random data, which is
    /// `min + (avg - min) * (1 - exp(-(max - min) / (avg - min)))`, is then within 5 % of `avg`.
    ///
    /// # Errors
    /// [`ParamsError`] names the first rule that the sizes break.
    pub fn new(min: usize, avg: usize, max: usize) -> Result<Self, ParamsError> {
        let bounds = [
            ("min", min, MIN_MIN, MIN_MAX),
            ("avg", avg, AVG_MIN, AVG_MAX),
            ("max", max, MAX_MIN, MAX_MAX),
        ];
        for (name, value, least, most) in bounds {
            if value < least || value > most {
                return Err(ParamsError::OutOfRange {
                    name,
                    value,
                    least,
                    most,
                });
            }
            if !value.is_multiple_of(2) {
                return Err(ParamsError::Odd { name, value });
            }
        }
        if !avg.is_power_of_two() {
            return Err(ParamsError::AverageNotPowerOfTwo { avg });
        }
        if min >= avg || avg >= max {
            return Err(ParamsError::NotAscending { min, avg, max });
        }
        let least = min + 3 * (avg - min);
        if max < least {
            return Err(ParamsError::MaxTooNear { max, least });
        }
        Ok(Self { min, avg, max })
    }

    /// No chunk but the last is shorter than this.
    #[must_use]
    pub const fn min(&self) -> usize {
        self.min
    }

    /// Aimed mean chunk size.
    #[must_use]
    pub const fn avg(&self) -> usize {
        self.avg
    }

    /// No chunk is longer than this.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }
}

impl Default for ChunkerParams {
    /// 256 KiB, 1 MiB, 4 MiB.
    fn default() -> Self {
        Self {
            min: 256 << 10,
            avg: 1 << 20,
            max: 4 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_passes_its_own_check() {
        let d = ChunkerParams::default();
        assert_eq!(ChunkerParams::new(d.min(), d.avg(), d.max()), Ok(d));
    }

    #[test]
    fn each_broken_rule_has_its_own_error() {
        let range = |name, value, least, most| ParamsError::OutOfRange {
            name,
            value,
            least,
            most,
        };
        let odd = |name, value| ParamsError::Odd { name, value };
        let descends = |min, avg, max| ParamsError::NotAscending { min, avg, max };
        let cases = [
            ((62, 256, 1024), range("min", 62, 64, 1 << 20)),
            (
                (2 << 20, 4 << 20, 16 << 20),
                range("min", 2 << 20, 64, 1 << 20),
            ),
            ((64, 128, 1024), range("avg", 128, 256, 4 << 20)),
            ((64, 8 << 20, 16 << 20), range("avg", 8 << 20, 256, 4 << 20)),
            ((64, 256, 512), range("max", 512, 1024, 16 << 20)),
            ((64, 256, 32 << 20), range("max", 32 << 20, 1024, 16 << 20)),
            ((65, 256, 1024), odd("min", 65)),
            ((64, 257, 1024), odd("avg", 257)),
            ((64, 256, 1025), odd("max", 1025)),
            (
                (64, 258, 1024),
                ParamsError::AverageNotPowerOfTwo { avg: 258 },
            ),
            ((512, 512, 1024), descends(512, 512, 1024)),
            ((256, 1024, 1024), descends(256, 1024, 1024)),
            (
                (256, 1024, 2048),
                ParamsError::MaxTooNear {
                    max: 2048,
                    least: 2560,
                },
            ),
        ];
        for ((min, avg, max), error) in cases {
            assert_eq!(ChunkerParams::new(min, avg, max), Err(error));
        }
        assert!(ChunkerParams::new(512, 1024, 2048).is_ok());
        assert!(ChunkerParams::new(1 << 20, 4 << 20, ChunkerParams::LARGEST_CHUNK).is_ok());
    }

    #[test]
    fn a_kind_survives_its_byte_and_other_bytes_are_unknown() {
        for byte in 0..=u8::MAX {
            match ChunkerKind::try_from(byte) {
                Ok(kind) => assert_eq!(u8::from(kind), byte),
                Err(error) => assert_eq!(error, UnknownChunker(byte)),
            }
        }
        assert_eq!(ChunkerKind::try_from(1), Ok(ChunkerKind::Gear));
        assert_eq!(ChunkerKind::try_from(2), Ok(ChunkerKind::FastCdc));
        assert!(ChunkerKind::try_from(0).is_err());
        assert!(ChunkerKind::try_from(3).is_err());
    }
}
