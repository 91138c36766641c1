//! What people write for sizes, spans of time, shares and points in time, as types; and nothing
//! about how they are shown (see `show::text`). Pure.

use std::{num::NonZeroU32, str::FromStr, time::Duration};

use jiff::{Zoned, civil::DateTime, tz::TimeZone};
use strongroom_repo::env::Timestamp;

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub(crate) struct BadUnit {
    text: String,
    expected: &'static str,
}

fn bad(text: &str, expected: &'static str) -> BadUnit {
    BadUnit {
        text: text.to_owned(),
        expected,
    }
}

/// A number of bytes: `4096`, `10K`, `1.5GiB`. Units are powers of 1024, upper or lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const SIZE: &str = "a size such as 4096, 512K, 10M or 1.5GiB";

impl FromStr for Size {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let wrong = || bad(text, SIZE);
        let trimmed = text.trim();
        let end = trimmed
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            "p" | "pb" | "pib" => 50,
            _ => return Err(wrong()),
        };
        let scaled = scale(number, 1 << shift).ok_or_else(wrong)?;
        Ok(Self(scaled))
    }
}

/// A decimal number such as `1.5` times `by`, rounded down; `None` where it is no number or too
/// large.
fn scale(number: &str, by: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 || number.ends_with('.') {
        return None;
    }
    let mut total = u128::from(whole.parse::<u64>().ok()?) * u128::from(by);
    if !fraction.is_empty() {
        let digits = u128::from(fraction.parse::<u64>().ok()?);
        let width = u32::try_from(fraction.len()).ok()?;
        total += digits * u128::from(by) / 10_u128.pow(width);
    }
    u64::try_from(total).ok()
}

/// A span of time: `90s`, `5m`, `1h30m`, `2d`, or a plain number of seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

const SPAN: &str = "a span of time such as 90s, 5m, 1h30m or 2d";

impl FromStr for Span {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let wrong = || bad(text, SPAN);
        let trimmed = text.trim();
        if let Ok(seconds) = trimmed.parse() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let mut total = 0_u64;
        let mut rest = trimmed;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(end);
            let unit = tail.chars().next().ok_or_else(wrong)?;
            let seconds = match unit {
                's' => 1,
                'm' => 60,
                'h' => 3600,
                'd' => 24 * 3600,
                'w' => 7 * 24 * 3600,
                _ => return Err(wrong()),
            };
            let number: u64 = number.parse().map_err(|_| wrong())?;
            total = number
                .checked_mul(seconds)
                .and_then(|part| total.checked_add(part))
                .ok_or_else(wrong)?;
            rest = tail.get(unit.len_utf8()..).unwrap_or_default();
        }
        if trimmed.is_empty() {
            return Err(wrong());
        }
        Ok(Self(Duration::from_secs(total)))
    }
}

/// A part of a repository's packs: `2/7` (the second of seven parts), `10%` or `1.5%` (a random
/// share), `50G` (random packs of about so many bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subset {
    /// One of several equal parts, counted from one.
    Part {
        /// Which.
        number: NonZeroU32,
        /// Of how many.
        of: NonZeroU32,
    },
    /// A share, in millionths.
    Share(u32),
    /// So many bytes.
    Bytes(u64),
}

const SUBSET: &str = "a part such as 2/7, 10%, 0.5% or 50G";

impl FromStr for Subset {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let wrong = || bad(text, SUBSET);
        let trimmed = text.trim();
        if let Some((number, of)) = trimmed.split_once('/') {
            let number: NonZeroU32 = number.trim().parse().map_err(|_| wrong())?;
            let of: NonZeroU32 = of.trim().parse().map_err(|_| wrong())?;
            if number > of {
                return Err(wrong());
            }
            return Ok(Self::Part { number, of });
        }
        if let Some(percent) = trimmed.strip_suffix('%') {
            let millionths = scale(percent.trim(), 10_000)
                .and_then(|share| u32::try_from(share).ok())
                .filter(|share| (1..=1_000_000).contains(share))
                .ok_or_else(wrong)?;
            return Ok(Self::Share(millionths));
        }
        match Size::from_str(trimmed).map_err(|_| wrong())? {
            Size(0) => Err(wrong()),
            Size(bytes) => Ok(Self::Bytes(bytes)),
        }
    }
}

/// A point in time: `2026-11-21 03:05:40` or `2026-11-21` in local time, or with `T`, fractions
/// and an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(pub(crate) Timestamp);

const MOMENT: &str = "a time such as \"2026-11-21 03:05:40\" or 2026-11-21T03:05:40Z";

impl Moment {
    /// Parses a time; one without an offset is taken in `zone`.
    pub(crate) fn parse(text: &str, zone: &TimeZone) -> Result<Self, BadUnit> {
        let wrong = || bad(text, MOMENT);
        let trimmed = text.trim();
        let exact = match (trimmed.parse::<jiff::Timestamp>(), trimmed.parse::<Zoned>()) {
            (Ok(exact), _) => exact,
            (_, Ok(zoned)) => zoned.timestamp(),
            _ => {
                let civil: DateTime = trimmed.parse().map_err(|_| wrong())?;
                let zoned = civil.to_zoned(zone.clone()).map_err(|_| wrong())?;
                zoned.timestamp()
            }
        };
        Ok(Self(from_jiff(exact)))
    }
}

/// A point in time as the engine has it.
pub(crate) fn from_jiff(time: jiff::Timestamp) -> Timestamp {
    let nanos = time.as_nanosecond();
    Timestamp {
        secs: i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or_default(),
        nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default(),
    }
}

/// A point in time as `jiff` has it; `None` beyond the year 9999.
pub(crate) fn to_jiff(time: Timestamp) -> Option<jiff::Timestamp> {
    let nanos = i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos);
    jiff::Timestamp::from_nanosecond(nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_1024_and_may_have_fractions() {
        let good = [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("10k", 10 << 10),
            ("10K", 10 << 10),
            ("10 KiB", 10 << 10),
            ("1.5GiB", 3 << 29),
            ("2T", 2 << 40),
            ("16383P", 16383 << 50),
        ];
        for (text, bytes) in good {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "K", "-1", "1.", ".5", "1.5.5", "1X", "16384P", "1 0"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_add_up_their_parts() {
        let good = [("90", 90), ("90s", 90), ("1h30m", 5400), ("2d", 172_800)];
        for (text, secs) in good {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs(secs))), "{text}");
        }
        for text in ["", "m", "5", "5m3", "5y", "99999999999999999999s"] {
            let parsed = text.parse::<Span>();
            assert_eq!(parsed.is_ok(), text == "5", "{text}");
        }
    }

    #[test]
    fn subsets_are_parts_shares_or_bytes() {
        let part = |number, of| {
            let (number, of) = (NonZeroU32::new(number), NonZeroU32::new(of));
            Subset::Part {
                number: number.unwrap(),
                of: of.unwrap(),
            }
        };
        let good = [
            ("2/7", part(2, 7)),
            ("100%", Subset::Share(1_000_000)),
            ("0.5%", Subset::Share(5_000)),
            ("50G", Subset::Bytes(50 << 30)),
        ];
        for (text, subset) in good {
            assert_eq!(text.parse(), Ok(subset), "{text}");
        }
        for text in ["0/7", "8/7", "1/0", "0%", "101%", "0", "x", "-1%"] {
            assert!(text.parse::<Subset>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_local() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let parse = |text| Moment::parse(text, &zone).unwrap().0.secs;
        assert_eq!(parse("1970-01-01 02:00:10"), 10);
        assert_eq!(parse("1970-01-02"), 22 * 3600);
        assert_eq!(parse("1970-01-01T00:00:10Z"), 10);
        assert_eq!(parse("1970-01-01T00:00:10+01:00"), 10 - 3600);
        for text in ["", "yesterday", "2026-13-01", "25:00"] {
            assert!(Moment::parse(text, &zone).is_err(), "{text}");
        }
    }

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = Timestamp {
            secs: -2,
            nanos: 500_000_000,
        };
        assert_eq!(to_jiff(time).map(from_jiff), Some(time));
    }
}
