//! The directory of a zip archive, as far as members that are stored plain need it: end record,
//! zip64 end record, central entries, local headers.
//!
//! Lives here: [`members`], the places of stored members. Does not live here: what is in them. The
//! format: APPNOTE.TXT of PKWARE, sections 4.3 and 4.5.
//!
//! Must stay true: an archive with a comment, parts, encryption or anything that does not add up is
//! `None`; central entry and local header have to agree on a member's name.

use std::ops::Range;

use super::source::Source;

/// How an archive begins: a local header.
pub(super) const MAGIC: &[u8; 4] = b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const END_LEN: u64 = 22;
const LOCATOR64_LEN: u64 = 20;
const CENTRAL_LEN: usize = 46;
const LOCAL_LEN: u64 = 30;
/// Longest directory that is read.
const MAX_DIRECTORY: u64 = 16 << 20;
/// Most members that are looked at: each costs a read.
const MAX_MEMBERS: u64 = 1 << 17;
const MAX_NAME: usize = 1 << 10;
/// Extra field of sizes and offsets beyond 32 bits.
const ZIP64_TAG: u16 = 1;

/// A member of an archive.
pub(super) struct Member {
    pub(super) name: String,
    /// Where its bytes are in the file; `None` if they are compressed.
    pub(super) stored: Option<Range<u64>>,
}

/// All members, in the order of the directory.
pub(super) fn members(source: &mut Source<'_>) -> Option<Vec<Member>> {
    let (directory, count) = directory(source)?;
    if directory.end.checked_sub(directory.start)? > MAX_DIRECTORY || count > MAX_MEMBERS {
        return None;
    }
    let bytes = source.bytes(directory)?;
    let mut rest = bytes.as_slice();
    let mut members = Vec::new();
    for _ in 0..count {
        let (entry, after) = Entry::parse(rest)?;
        rest = after;
        members.push(entry.member(source)?);
    }
    rest.is_empty().then_some(members)
}

/// Where the central directory is, and how many entries it has.
fn directory(source: &mut Source<'_>) -> Option<(Range<u64>, u64)> {
    let end_at = source.len().checked_sub(END_LEN)?;
    let end: [u8; 22] = source.array(end_at)?;
    let in_parts = field16(&end, 4)? != 0 || field16(&end, 6)? != 0;
    let has_comment = field16(&end, 20)? != 0;
    if !end.starts_with(&END) || in_parts || has_comment || field16(&end, 8)? != field16(&end, 10)?
    {
        return None;
    }
    let count = u64::from(field16(&end, 10)?);
    let (len, start) = (u64::from(field32(&end, 12)?), u64::from(field32(&end, 16)?));
    let located = end_at.checked_sub(LOCATOR64_LEN);
    let locator: Option<[u8; 20]> = located.and_then(|at| source.array(at));
    match locator {
        Some(locator) if locator.starts_with(&LOCATOR64) => {
            let at = field64(&locator, 8)?;
            let end: [u8; 56] = source.array(at)?;
            if !end.starts_with(&END64) || at.checked_add(56)? > located? {
                return None;
            }
            let (count, len, start) = (field64(&end, 32)?, field64(&end, 40)?, field64(&end, 48)?);
            let range = start..start.checked_add(len)?;
            (range.end <= at).then_some((range, count))
        }
        _ => {
            let range = start..start.checked_add(len)?;
            (range.end <= end_at).then_some((range, count))
        }
    }
}

struct Entry {
    name: String,
    is_stored: bool,
    len: u64,
    local: u64,
}

impl Entry {
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (fixed, rest) = bytes.split_at_checked(CENTRAL_LEN)?;
        let name_len = usize::from(field16(fixed, 28)?);
        let (name, rest) = rest.split_at_checked(name_len)?;
        let (extra, rest) = rest.split_at_checked(usize::from(field16(fixed, 30)?))?;
        let (_, rest) = rest.split_at_checked(usize::from(field16(fixed, 32)?))?;
        let is_encrypted = field16(fixed, 8)? & 0x2041 != 0;
        if !fixed.starts_with(&CENTRAL) || is_encrypted || name_len > MAX_NAME {
            return None;
        }
        let mut wide = Wide::of(extra)?;
        let len = wide.widened(field32(fixed, 24)?)?;
        let packed = wide.widened(field32(fixed, 20)?)?;
        let local = wide.widened(field32(fixed, 42)?)?;
        let is_stored = field16(fixed, 10)? == 0;
        if is_stored && len != packed {
            return None;
        }
        let entry = Self {
            name: String::from_utf8(name.to_vec()).ok()?,
            is_stored,
            len,
            local,
        };
        Some((entry, rest))
    }

    /// Finds the member's bytes by its local header.
    fn member(self, source: &mut Source<'_>) -> Option<Member> {
        if !self.is_stored {
            let (name, stored) = (self.name, None);
            return Some(Member { name, stored });
        }
        let header: [u8; 30] = source.array(self.local)?;
        let name_start = self.local.checked_add(LOCAL_LEN)?;
        let name_end = name_start.checked_add(u64::from(field16(&header, 26)?))?;
        let start = name_end.checked_add(u64::from(field16(&header, 28)?))?;
        let end = start.checked_add(self.len)?;
        let agrees = header.starts_with(MAGIC)
            && field16(&header, 8)? == 0
            && source.bytes(name_start..name_end)? == self.name.as_bytes();
        (agrees && end <= source.len()).then_some(Member {
            name: self.name,
            stored: Some(start..end),
        })
    }
}

/// The values of a zip64 field: one for each value of the entry that says it is too small.
struct Wide<'e>(&'e [u8]);

impl<'e> Wide<'e> {
    fn of(mut extra: &'e [u8]) -> Option<Self> {
        while extra.len() >= 4 {
            let (tag, len) = (field16(extra, 0)?, usize::from(field16(extra, 2)?));
            let (field, rest) = extra.split_at(4).1.split_at_checked(len)?;
            if tag == ZIP64_TAG {
                return Some(Self(field));
            }
            extra = rest;
        }
        Some(Self(&[]))
    }

    fn widened(&mut self, narrow: u32) -> Option<u64> {
        if narrow != u32::MAX {
            return Some(u64::from(narrow));
        }
        let (value, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*value))
    }
}

fn field16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn field32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn field64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How an archive is written, each part open to lies.
    #[derive(Clone, Copy, Default)]
    struct Lies {
        wide: bool,
        local_name: Option<&'static str>,
        local_at: Option<u32>,
        packed_len: Option<u32>,
        flags: u16,
        more_members: u16,
        comment: u16,
    }

    fn archive(members: &[(&str, &[u8])], lies: Lies) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, data) in members {
            let at = u32::try_from(file.len()).unwrap();
            let len = u32::try_from(data.len()).unwrap();
            let name_len = u16::try_from(name.len()).unwrap().to_le_bytes();
            file.extend([&MAGIC[..], &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0; 12]].concat());
            file.extend([name_len, [7, 0]].concat());
            file.extend(lies.local_name.unwrap_or(name).as_bytes());
            file.extend([b"FB\x03\0", &[0; 3][..], data].concat());
            let (narrow, extra) = if lies.wide {
                let wide = [u64::from(len), u64::from(len), u64::from(at)];
                let wide: Vec<u8> = wide.into_iter().flat_map(u64::to_le_bytes).collect();
                (u32::MAX, [&[9, 9, 0, 0, 1, 0, 24, 0][..], &wide].concat())
            } else {
                (len, Vec::new())
            };
            let packed = lies.packed_len.unwrap_or(narrow);
            let at = lies
                .local_at
                .unwrap_or(if lies.wide { u32::MAX } else { at });
            let extra_len = u16::try_from(extra.len()).unwrap().to_le_bytes();
            directory.extend([&CENTRAL[..], &[20, 0, 20, 0], &lies.flags.to_le_bytes()].concat());
            directory.extend([0; 10]);
            directory.extend([packed.to_le_bytes(), narrow.to_le_bytes()].concat());
            directory.extend([name_len, extra_len].concat());
            directory.extend([0; 10]);
            directory.extend([&at.to_le_bytes()[..], name.as_bytes(), &extra].concat());
        }
        let (start, len) = (file.len(), directory.len());
        let count = u16::try_from(members.len()).unwrap() + lies.more_members;
        file.extend(directory);
        let narrow = |value: usize| u32::try_from(value).unwrap();
        let (mut short_count, mut place) = (count, [narrow(len), narrow(start)]);
        if lies.wide {
            let at = file.len() as u64;
            let count = u64::from(count);
            file.extend([&END64[..], &44u64.to_le_bytes(), &[45, 0, 45, 0], &[0; 8]].concat());
            for value in [count, count, len as u64, start as u64] {
                file.extend(value.to_le_bytes());
            }
            file.extend([&LOCATOR64[..], &[0; 4], &at.to_le_bytes(), &[1, 0, 0, 0]].concat());
            (short_count, place) = (u16::MAX, [u32::MAX; 2]);
        }
        file.extend([&END[..], &[0; 4]].concat());
        file.extend([short_count.to_le_bytes(), short_count.to_le_bytes()].concat());
        file.extend(place.map(u32::to_le_bytes).concat());
        file.extend(lies.comment.to_le_bytes());
        file
    }

    fn places(file: &[u8]) -> Option<Vec<(String, Option<Range<u64>>)>> {
        let mut reader = crate::fuzz::reader(file);
        let mut read = |offset: u64, buffer: &mut [u8]| {
            let Ok(got) = reader(offset, buffer);
            got
        };
        let members = members(&mut Source::new(file.len() as u64, &mut read))?;
        Some(members.into_iter().map(|m| (m.name, m.stored)).collect())
    }

    const TWO: [(&str, &[u8]); 2] = [("a", b"first"), ("b/c", b"second one")];

    #[test]
    fn stored_members_are_found_behind_their_local_headers() {
        for wide in [false, true] {
            let lies = Lies {
                wide,
                ..Lies::default()
            };
            let file = archive(&TWO, lies);
            let found = places(&file).unwrap();
            for ((name, place), (wanted, data)) in found.iter().zip(TWO) {
                let place = place.clone().unwrap();
                let at = |offset| usize::try_from(offset).unwrap();
                assert_eq!(name, wanted);
                assert_eq!(&file[at(place.start)..at(place.end)], data);
            }
        }
    }

    #[test]
    fn an_archive_that_does_not_add_up_has_no_members() {
        let good = Lies::default();
        let wrong = [
            Lies {
                local_name: Some("z"),
                ..good
            },
            Lies {
                local_at: Some(3),
                ..good
            },
            Lies {
                local_at: Some(1 << 30),
                ..good
            },
            Lies {
                packed_len: Some(4),
                ..good
            },
            Lies { flags: 1, ..good },
            Lies {
                more_members: 1,
                ..good
            },
            Lies { comment: 1, ..good },
        ];
        assert!(places(&archive(&TWO, good)).is_some());
        for lies in wrong {
            assert_eq!(places(&archive(&TWO, lies)), None);
        }
        assert_eq!(places(b""), None);
        assert_eq!(places(&archive(&TWO, good)[1..]), None);
    }

    #[test]
    fn members_at_one_place_make_the_file_plain() {
        let array = {
            let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5000,), }";
            let header = format!("{header:<117}\n");
            [b"\x93NUMPY\x01\0\x76\0", header.as_bytes(), &[7; 20_000]].concat()
        };
        let honest = archive(&[("a.npy", &array), ("b.npy", &array)], Lies::default());
        assert!(!super::super::at_hand(&honest, honest.len() as u64).is_plain());
        // Both names lead to the first.
        let mut lying = archive(&[("a.npy", &array), ("a.npy", &array)], Lies::default());
        let second = lying.len() - 22 - 9;
        lying[second..second + 4].fill(0);
        assert!(places(&lying).is_some());
        assert!(super::super::at_hand(&lying, lying.len() as u64).is_plain());
    }
}
