//! Files that change in blocks of a fixed size: SQLite databases, and images of disks and file
//! systems.
//!
//! Lives here: their marks, and the least of their headers that tells a mark from chance. Does not
//! live here: what is in them; how blocks are cut.
//!
//! Must stay true: only fixed places near the start are looked at. A mark of few bits is believed
//! together with other fields only.

use super::{Format, source::Source};

/// The grid of disk images: what file systems and page caches write.
pub(super) const DISK_GRID: u32 = 4096;
/// Shorter files are not looked at for marks that do not stand at the very start: no file system
/// worth a grid is that small.
pub(super) const LEAST_IMAGE: u64 = 1 << 20;

const SECTOR: u64 = 512;
const BTRFS_MARK: u64 = 65_600;
const HEAD: u64 = 2048;

/// The length of a page of an SQLite database, in bytes.
pub(super) fn sqlite_page(source: &mut Source<'_>) -> Option<u32> {
    let head: [u8; 100] = source.array(0)?;
    let rest = head.strip_prefix(b"SQLite format 3\0")?;
    let [high, low, write, read, _, 64, 32, 32, ..] = *rest else {
        return None;
    };
    let page = match u16::from_be_bytes([high, low]) {
        1 => 65_536,
        page => u32::from(page),
    };
    let is_page = page.is_power_of_two() && page >= 512;
    let is_version = matches!((write, read), (1 | 2, 1 | 2));
    (is_page && is_version).then_some(page)
}

/// Which image a file is.
pub(super) fn image(source: &mut Source<'_>) -> Option<Format> {
    if source.len() < LEAST_IMAGE {
        return None;
    }
    let head = source.bytes(0..HEAD)?;
    let format = if is_qcow2(&head) {
        Format::Qcow2
    } else if is_xfs(&head) {
        Format::Xfs
    } else if is_gpt(&head) {
        Format::Gpt
    } else if is_ext(&head) {
        Format::Ext
    } else if is_mbr(&head, source.len()) {
        Format::Mbr
    } else if source.array(BTRFS_MARK)? == *b"_BHRfS_M" {
        Format::Btrfs
    } else {
        return None;
    };
    Some(format)
}

fn is_qcow2(head: &[u8]) -> bool {
    let versioned = matches!(head.strip_prefix(b"QFI\xfb"), Some([0, 0, 0, 2 | 3, ..]));
    versioned && be32(head, 20).is_some_and(|bits| (9..=21).contains(&bits))
}

fn is_xfs(head: &[u8]) -> bool {
    let block = be32(head, 4).unwrap_or_default();
    head.starts_with(b"XFSB") && block.is_power_of_two() && (512..=65_536).contains(&block)
}

fn is_gpt(head: &[u8]) -> bool {
    let header = head.get(512..).unwrap_or_default();
    let is_sane = |len: u32| (92..=512).contains(&len);
    header.starts_with(b"EFI PART\0\0\x01\0") && le32(header, 12).is_some_and(is_sane)
}

/// A superblock of ext2, ext3 or ext4.
fn is_ext(head: &[u8]) -> bool {
    let block = head.get(1024..).unwrap_or_default();
    let [inodes, blocks] = [le32(block, 0), le32(block, 4)].map(Option::unwrap_or_default);
    let small = |at: usize, most: u32| le32(block, at).is_some_and(|value| value <= most);
    block.get(56..58) == Some(&[0x53, 0xef])
        && inodes > 0
        && blocks > 0
        // First data block, block size, revision.
        && small(20, 1)
        && small(24, 6)
        && small(76, 1)
}

/// A partition table: partitions within the file that do not overlap, at least one.
fn is_mbr(head: &[u8], file_len: u64) -> bool {
    if head.get(510..512) != Some(&[0x55, 0xaa]) {
        return false;
    }
    let entries = head.get(446..510).unwrap_or_default();
    let mut partitions = Vec::new();
    for entry in entries.as_chunks::<16>().0 {
        let [status, _, _, _, kind, ..] = *entry;
        if *entry == [0; 16] {
            continue;
        }
        let start = u64::from(le32(entry, 8).unwrap_or_default());
        let end = start + u64::from(le32(entry, 12).unwrap_or_default());
        let fits = start > 0 && end > start && end * SECTOR <= file_len;
        if kind == 0 || !matches!(status, 0 | 0x80) || !fits {
            return false;
        }
        partitions.push((start, end));
    }
    partitions.sort_unstable();
    let apart = |pair: &[(u64, u64)]| matches!(pair, [(_, end), (start, _)] if end <= start);
    !partitions.is_empty() && partitions.windows(2).all(apart)
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
