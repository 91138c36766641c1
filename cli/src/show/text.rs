//! Values as words: sizes, spans, times, names. Pure but for [`to_stderr`].
//!
//! What must stay true: nothing that came out of a file system or a repository reaches a terminal
//! without [`safe`] or [`name`], for a file name must not be able to drive the terminal.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    panic::PanicHookInfo,
    time::Duration,
};

use jiff::tz::TimeZone;
use strongroom_repo::env::Timestamp;
use unicode_width::UnicodeWidthStr as _;

use crate::units::to_jiff;

/// Writes a line to standard error; there is nowhere to report a failure to.
pub(crate) fn to_stderr(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Tells of a bug in our words: where it is, and that it is ours.
pub(crate) fn internal_error(panic: &PanicHookInfo<'_>) {
    let words = panic.payload_as_str().unwrap_or("no details");
    let place = panic.location().map_or_else(String::new, |place| {
        format!(" at {}:{}", place.file(), place.line())
    });
    to_stderr(&safe(&format!(
        "internal error: {words}{place}; this is a bug of strongroom, please report it"
    )));
}

/// A number of bytes for people, in three digits: `512 B`, `1.50 KiB`, `12.3 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut unit = 1_u128;
    let mut out = String::new();
    for name in UNITS {
        unit *= 1024;
        // The value in units, hundredths rounded.
        let in_parts = |parts: u128| (u128::from(bytes) * parts + unit / 2) / unit;
        let (hundredths, tenths, whole) = (in_parts(100), in_parts(10), in_parts(1));
        out = if hundredths < 1000 {
            format!("{}.{:02} {name}", hundredths / 100, hundredths % 100)
        } else if tenths < 1000 {
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        } else {
            format!("{whole} {name}")
        };
        if whole < 1000 {
            break;
        }
    }
    out
}

/// A rate in bytes a second.
pub(crate) fn rate(bytes: u64, time: Duration) -> String {
    let nanos = time.as_nanos().max(1);
    let per_second = u128::from(bytes) * 1_000_000_000 / nanos;
    format!("{}/s", size(u64::try_from(per_second).unwrap_or(u64::MAX)))
}

/// A span of time: `0.25 s`, `42 s`, `3:05`, `2:03:05`.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{}.{:02} s", seconds, time.subsec_millis() / 10),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!(
            "{}:{:02}:{:02}",
            seconds / 3600,
            seconds / 60 % 60,
            seconds % 60
        ),
    }
}

/// A span of time that goes on: `0:07`, `12:34`, `1:02:03`.
pub(crate) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours == 0 {
        format!("{minutes}:{:02}", seconds % 60)
    } else {
        format!("{hours}:{minutes:02}:{:02}", seconds % 60)
    }
}

/// The end of a text, with `…` in front where it is wider than so many columns.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut rest = text;
    while rest.width() >= columns.max(1) {
        let mut chars = rest.chars();
        chars.next();
        rest = chars.as_str();
    }
    format!("…{rest}")
}

/// A share: `100 %`, `12.5 %`; nothing of nothing is everything.
pub(crate) fn percent(part: u64, of: u64) -> String {
    let tenths = if of == 0 {
        1000
    } else {
        u128::from(part.min(of)) * 1000 / u128::from(of)
    };
    if tenths == 1000 {
        "100 %".to_owned()
    } else {
        format!("{}.{} %", tenths / 10, tenths % 10)
    }
}

/// A number with its noun: `1 file`, `3 files`.
pub(crate) fn count(number: u64, one: &str, many: &str) -> String {
    format!(
        "{} {}",
        grouped(number),
        if number == 1 { one } else { many }
    )
}

/// A number in groups of three digits: `12'345'678`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\'');
        }
        out.push(digit);
    }
    out
}

/// A point in time as people read it: `2026-11-21 03:05:40`, in `zone`.
pub(crate) fn time(time: Timestamp, zone: &TimeZone) -> String {
    to_jiff(time).map_or_else(
        || format!("{} s", time.secs),
        |time| {
            time.to_zoned(zone.clone())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string()
        },
    )
}

/// A point in time as programs read it: RFC 3339 with nanoseconds.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    to_jiff(time).map_or_else(|| time.secs.to_string(), |time| format!("{time:.9}"))
}

/// Text in which nothing can drive a terminal: control characters and those that turn the
/// direction of writing are spelled out.
pub(crate) fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if drives(c) {
            push_escaped(&mut out, c);
        } else {
            out.push(c);
        }
    }
    out
}

/// A file name or path: as it is where that is harmless, in quotes with escapes otherwise.
pub(crate) fn name(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(drives)
        && !text.starts_with('"')
    {
        return text.to_owned();
    }
    let mut out = String::from('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                c if drives(c) => push_escaped(&mut out, c),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Whether a terminal might act on the character rather than show it.
fn drives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if c.is_ascii() => {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        }
        c => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
    }
}

/// The permissions of a file as `ls -l` shows them, its type in front.
pub(crate) fn permissions(kind: char, mode: u16) -> String {
    let mut out = String::from(kind);
    for (shift, special, with_x, without_x) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        out.push(if bits & 4 == 0 { '-' } else { 'r' });
        out.push(if bits & 2 == 0 { '-' } else { 'w' });
        out.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with_x,
            (true, false) => without_x,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 << 20, "10.0 MiB"),
            (999 << 30, "999 GiB"),
            ((1 << 20) - 1, "1.00 MiB"),
            (1000 << 20, "0.98 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn spans_shares_counts_and_rates() {
        assert_eq!(span(Duration::from_millis(250)), "0.25 s");
        assert_eq!(span(Duration::from_secs(59)), "59 s");
        assert_eq!(span(Duration::from_secs(185)), "3:05");
        assert_eq!(span(Duration::from_secs(7385)), "2:03:05");
        assert_eq!(clock(Duration::from_millis(7900)), "0:07");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
        assert_eq!(percent(1, 8), "12.5 %");
        assert_eq!(percent(0, 0), "100 %");
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(12_345_678, "file", "files"), "12'345'678 files");
        assert_eq!(rate(3 << 20, Duration::from_secs(2)), "1.50 MiB/s");
        assert_eq!(rate(0, Duration::ZERO), "0 B/s");
    }

    #[test]
    fn times_are_local_for_people_and_exact_for_programs() {
        let at = Timestamp { secs: 10, nanos: 5 };
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        assert_eq!(time(at, &zone), "1970-01-01 01:00:10");
        assert_eq!(rfc3339(at), "1970-01-01T00:00:10.000000005Z");
    }

    #[test]
    fn the_end_of_a_path_is_what_is_kept() {
        assert_eq!(fit("/a/b", 4), "/a/b");
        assert_eq!(fit("/srv/models", 7), "…models");
        assert_eq!(fit("漢字漢", 5), "…字漢");
        assert_eq!(fit("abc", 0), "…");
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let cases: [(&[u8], &str); 7] = [
            (b"plain name", "plain name"),
            ("ÄÖ漢".as_bytes(), "ÄÖ漢"),
            (b"\x1b[31mred", "\"\\x1b[31mred\""),
            (b"a\nb", "\"a\\nb\""),
            (b"\xffx", "\"\\xffx\""),
            ("\u{9b}2J".as_bytes(), "\"\\u{9b}2J\""),
            ("\u{202e}gpj".as_bytes(), "\"\\u{202e}gpj\""),
        ];
        for (bytes, text) in cases {
            assert_eq!(name(bytes), text);
        }
        assert_eq!(safe("a\x07b"), "a\\x07b");
    }

    #[test]
    fn permissions_read_as_in_a_listing() {
        assert_eq!(permissions('-', 0o644), "-rw-r--r--");
        assert_eq!(permissions('d', 0o1777), "drwxrwxrwt");
        assert_eq!(permissions('-', 0o6750), "-rwsr-s---");
        assert_eq!(permissions('-', 0o4644), "-rwSr--r--");
    }
}
