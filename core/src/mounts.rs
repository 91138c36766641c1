//! Where a block device is mounted, as `/proc/self/mountinfo` has it.

use rustix::fs::{FileType, major, minor, stat};

use crate::node::DeviceNumber;

/// Devices that are looked at because of one: more have other troubles.
const MAX_RELATED: usize = 256;

/// A file system on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Where it is mounted.
    pub(crate) at: Vec<u8>,
    /// Whether it may be written to.
    pub(crate) writable: bool,
}

/// The first mount of a device; none where the system does not tell.
pub(crate) fn of(device: DeviceNumber) -> Option<Mount> {
    let table = std::fs::read("/proc/self/mountinfo").ok()?;
    find(&table, device, &number_of)
}

/// The first mount of a device, of one of its partitions, or of what rests on one of these
/// (volumes, encrypted devices, RAID).
pub(crate) fn of_all(device: DeviceNumber) -> Option<Mount> {
    let mut waiting = vec![device];
    let mut seen = Vec::new();
    while let Some(device) = waiting.pop() {
        if seen.contains(&device) || seen.len() >= MAX_RELATED {
            continue;
        }
        seen.push(device);
        if let Some(mount) = of(device) {
            return Some(mount);
        }
        let folder = format!("/sys/dev/block/{}:{}", device.major, device.minor);
        for (place, is_holder) in [(folder.clone(), false), (format!("{folder}/holders"), true)] {
            let names = std::fs::read_dir(place).into_iter().flatten().flatten();
            waiting.extend(names.filter_map(|name| {
                if !is_holder && !name.path().join("partition").exists() {
                    return None;
                }
                let number = std::fs::read_to_string(name.path().join("dev")).ok()?;
                let (major, minor) = number.trim_end().split_once(':')?;
                Some(DeviceNumber {
                    major: major.parse().ok()?,
                    minor: minor.parse().ok()?,
                })
            }));
        }
    }
    None
}

/// The number of the device at a path; none where there is none.
pub(crate) fn number_of(path: &[u8]) -> Option<DeviceNumber> {
    let stat = stat(path).ok()?;
    let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    is_block.then(|| DeviceNumber {
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
    })
}

/// `resolve` tells the number of the device at a path: some file systems are known by that alone.
fn find(
    table: &[u8],
    device: DeviceNumber,
    resolve: &dyn Fn(&[u8]) -> Option<DeviceNumber>,
) -> Option<Mount> {
    let number = format!("{}:{}", device.major, device.minor);
    for line in table.split(|byte| *byte == b'\n') {
        let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let Some(end) = fields.iter().position(|field| *field == b"-") else {
            continue;
        };
        let field = |at: usize| fields.get(at).copied().unwrap_or_default();
        let source = unescape(field(end + 2));
        let is_it = field(2) == number.as_bytes()
            || (source.starts_with(b"/") && resolve(&source) == Some(device));
        if is_it {
            let mut options = field(end + 3).split(|byte| *byte == b',');
            return Some(Mount {
                at: unescape(field(4)),
                writable: options.any(|option| option == b"rw"),
            });
        }
    }
    None
}

/// Takes back what the table does to white space: `\040` and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| *first == b'\\');
        let code = code.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = br"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
30 22 7:3 / /mnt/with\040space rw - ext4 /dev/loop3 ro
31 22 0:40 / /data rw - btrfs /dev/loop4 rw,space_cache
32 22 0:41 / /tmp rw - tmpfs tmpfs rw
";

    #[test]
    fn a_mount_is_found_by_number_or_by_the_name_of_its_device() {
        let resolve =
            |path: &[u8]| (path == b"/dev/loop4").then_some(DeviceNumber { major: 7, minor: 4 });
        let found = |major, minor| find(TABLE, DeviceNumber { major, minor }, &resolve);
        let root = found(8, 1).unwrap();
        assert_eq!((root.at.as_slice(), root.writable), (&b"/"[..], true));
        let space = found(7, 3).unwrap();
        assert_eq!(space.at, b"/mnt/with space");
        assert!(!space.writable);
        assert_eq!(found(7, 4).unwrap().at, b"/data");
        assert_eq!(found(7, 5), None);
    }
}
