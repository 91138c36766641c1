//! Block devices: their content saved, and files written onto them. These tests need loop devices,
//! and so root.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    loops::{Loop, Mounted, must},
    runs::{Dice, answer, end, id, noise, send, start, well},
    sandbox::Sandbox,
    tree::{assert_same, read},
};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;

/// Saves the content of a device by a link to it, as volumes are named; nothing may be said.
/// What else there is beside the device itself may change meanwhile.
fn save_device(sandbox: &Sandbox, device: &Loop) -> Value {
    let link = sandbox.path("volume");
    if !link.exists() {
        std::os::unix::fs::symlink(device.path(), link).unwrap();
    }
    let arguments = ["--json", "backup", "--read-devices", "volume"];
    answer(sandbox, arguments).pop().unwrap()
}

/// Writes what was saved of one device onto another; nothing may be said.
fn restore_onto(sandbox: &Sandbox, image: &str, to: &Path, option: &str) -> Value {
    let image = format!("latest:{image}");
    let arguments = [
        "--json",
        "restore",
        &image,
        "--to-device",
        to.to_str().unwrap(),
        option,
        "--verify",
    ];
    answer(sandbox, arguments).pop().unwrap()
}

fn number(message: &Value, field: &str) -> u64 {
    message[field].as_u64().unwrap()
}

fn sparse(path: &Path, len: usize) {
    let file = File::create(path).unwrap();
    file.set_len(u64::try_from(len).unwrap()).unwrap();
}

/// Other bytes in some pages, as many as asked for.
fn change_pages(content: &mut [u8], count: usize, dice: &mut Dice) {
    let pages = u64::try_from(content.len() / PAGE).unwrap();
    let mut changed = std::collections::BTreeSet::new();
    while changed.len() < count {
        changed.insert(usize::try_from(dice.next() % pages).unwrap());
    }
    for page in changed {
        let at = page * PAGE + usize::try_from(dice.next()).unwrap_or(0) % PAGE;
        content[at] ^= 0x55;
    }
}

#[test]
fn a_device_is_restored_onto_others_and_only_pages_that_differ_are_written() {
    let sandbox = Sandbox::with_repository();
    let mut dice = Dice::rolled();
    let len = 48 * MIB;
    let mut content = noise(len, dice.next());
    content[10 * MIB..14 * MIB].fill(0);
    let source = Loop::with(&sandbox.path("source"), &content);
    let saved = save_device(&sandbox, &source);
    assert_eq!(number(&saved, "total_bytes_processed"), len as u64);
    assert_eq!(number(&saved, "files_new"), 1);

    let blank = Loop::with(&sandbox.path("blank"), &vec![0xa5; len]);
    let report = restore_onto(&sandbox, "volume", blank.path(), "--yes");
    assert_eq!(number(&report, "bytes_written"), len as u64);
    assert_eq!(number(&report, "bytes_verified"), len as u64);
    assert!(blank.read() == content, "not the same");

    let mut other = content.clone();
    let pages = len / PAGE / 100;
    change_pages(&mut other, pages, &mut dice);
    let near = Loop::with(&sandbox.path("near"), &other);
    let before = near.written();
    let would = restore_onto(&sandbox, "volume", near.path(), "--dry-run");
    assert_eq!(number(&would, "bytes_written"), (pages * PAGE) as u64);
    assert_eq!(near.written(), before, "a dry run writes nothing");
    let report = restore_onto(&sandbox, "volume", near.path(), "--yes");
    assert_eq!(number(&report, "bytes_written"), (pages * PAGE) as u64);
    assert_eq!(number(&report, "bytes_compared"), len as u64);
    assert!(near.read() == content, "not the same");
    let written = near.written() - before;
    assert!(written >= (pages * PAGE) as u64, "{written} bytes");
    assert!(written <= len as u64 / 50, "{written} bytes were written");
    let again = restore_onto(&sandbox, "volume", near.path(), "--yes");
    assert_eq!(number(&again, "bytes_written"), 0);
    well(&sandbox, ["check", "--read-data"]);
}

#[test]
fn a_frozen_file_system_is_saved_as_it_is_and_comes_back_clean() {
    let sandbox = Sandbox::with_repository();
    sparse(&sandbox.path("disk"), 64 * MIB);
    let device = Loop::over(&sandbox.path("disk"), &[]);
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F"]).arg(device.path());
    must(mkfs);
    let at = sandbox.path("mounted");
    let saved = {
        let mut mounted = Mounted::new(&device, &at, "rw");
        // What is in the cache of the device from now on is old when it is saved.
        assert_eq!(device.read().len(), 64 * MIB);
        fs::write(at.join("a"), noise(20 * MIB, 1)).unwrap();
        fs::create_dir(at.join("below")).unwrap();
        fs::write(at.join("below/b"), b"b").unwrap();
        mounted.freeze();
        let saved = sandbox.run(["--json", "backup", "--read-devices", device.name()]);
        assert_eq!(saved.code, 0, "{saved:?}");
        let warning = format!("{} is mounted for writing at", device.name());
        assert!(saved.err.contains(&warning), "{saved:?}");
        (saved.last_message(), read(&at))
    };
    assert_eq!(number(&saved.0, "error_count"), 0);
    let image = sandbox.path("image");
    fs::write(&image, noise(64 * MIB, 2)).unwrap();
    restore_onto(&sandbox, device.name(), &image, "--yes");
    let mut fsck = Command::new("fsck.ext4");
    fsck.arg("-fn").arg(&image);
    must(fsck);
    let restored = Loop::over(&image, &["--read-only"]);
    let _mounted = Mounted::new(&restored, &sandbox.path("again"), "ro");
    assert_same(&saved.1, &read(&sandbox.path("again")));
}

#[test]
fn what_was_never_written_takes_no_room_and_a_larger_device_keeps_its_rest() {
    let sandbox = Sandbox::with_repository();
    let len = 64 * MIB;
    sparse(&sandbox.path("source"), len);
    let source = Loop::over(&sandbox.path("source"), &[]);
    let part = noise(MIB, 3);
    source.write_at(20 << 20, &part);
    let saved = save_device(&sandbox, &source);
    let added = number(&saved, "data_added_packed");
    assert!(added < 2 << 20, "{added} bytes stored");
    let larger = Loop::with(&sandbox.path("larger"), &vec![0xa5; len + 5 * MIB + 512]);
    let arguments = [
        "restore",
        "latest:volume",
        "--to-device",
        larger.name(),
        "--yes",
    ];
    let said = sandbox.run(arguments);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("were left as they are"), "{said:?}");
    let there = larger.read();
    assert!(there[..len] == source.read(), "not the same");
    assert!(there[len..].iter().all(|byte| *byte == 0xa5));
}

#[test]
fn what_lies_behind_a_file_in_its_last_page_stays_what_the_disk_has() {
    let sandbox = Sandbox::with_repository();
    let content = noise(MIB + 1000, 8);
    fs::write(sandbox.path("image"), &content).unwrap();
    well(&sandbox, ["backup", "image"]);
    let disk = sandbox.path("disk");
    let device = Loop::with(&disk, &vec![0xa5; 2 * MIB]);
    // Somebody has it open and in memory, and then it changes past that memory.
    let holder = File::open(device.path()).unwrap();
    let byte_behind = || {
        let mut byte = [0];
        holder
            .read_exact_at(&mut byte, (MIB + 1000) as u64)
            .unwrap();
        byte
    };
    assert_eq!(byte_behind(), [0xa5]);
    let changed = File::options().write(true).open(&disk).unwrap();
    changed.write_all_at(&vec![0x3c; 2 * MIB], 0).unwrap();
    assert_eq!(byte_behind(), [0xa5], "it is remembered no longer");
    restore_onto(&sandbox, "image", device.path(), "--yes");
    let there = fs::read(&disk).unwrap();
    assert!(there[..content.len()] == content, "not the same");
    assert!(there[content.len()..].iter().all(|byte| *byte == 0x3c));
    assert_eq!(byte_behind(), [0x3c]);
}

#[test]
fn a_second_backup_of_a_device_stores_what_changed_and_none_where_nothing_did() {
    let sandbox = Sandbox::with_repository();
    let mut dice = Dice::rolled();
    let mut content = noise(48 * MIB, dice.next());
    let device = Loop::with(&sandbox.path("disk"), &content);
    save_device(&sandbox, &device);
    let again = save_device(&sandbox, &device);
    assert_eq!(number(&again, "files_unmodified"), 1);
    assert_eq!(number(&again, "data_added"), 0, "{again}");
    let skipped = sandbox.run([
        "--json",
        "backup",
        "--read-devices",
        "--skip-if-unchanged",
        "volume",
    ]);
    assert_eq!(skipped.last_message()["snapshot_id"], Value::Null);

    let pages = 48;
    change_pages(&mut content, pages, &mut dice);
    device.write_at(0, &content);
    let changed = save_device(&sandbox, &device);
    assert_eq!(number(&changed, "files_changed"), 1);
    let added = number(&changed, "data_added_packed");
    eprintln!("{pages} pages of {PAGE} bytes changed, {added} bytes were stored");
    // Most of it are the pages of the list of chunks.
    assert!(added < 256 << 10, "{added} bytes for {pages} pages");
    let to = Loop::with(&sandbox.path("to"), &vec![0; content.len()]);
    restore_onto(&sandbox, "volume", to.path(), "--yes");
    assert!(to.read() == content, "not the same");
    well(&sandbox, ["check", "--read-data"]);
}

#[test]
fn a_saved_device_is_restored_as_a_file_too() {
    let sandbox = Sandbox::with_repository();
    let content = noise(3 * MIB + 512, 4);
    let device = Loop::with(&sandbox.path("disk"), &content);
    let saved = save_device(&sandbox, &device);
    well(&sandbox, ["restore", &id(&saved), "--target", "to"]);
    assert!(fs::read(sandbox.path("to/volume")).unwrap() == content);
    // What is newer is not taken for the same.
    device.write_at(5000, b"other");
    let saved = save_device(&sandbox, &device);
    let over = [
        "restore",
        &id(&saved),
        "--target",
        "to",
        "--overwrite",
        "if-changed",
    ];
    well(&sandbox, over);
    assert!(fs::read(sandbox.path("to/volume")).unwrap() == device.read());
}

#[test]
fn without_the_option_a_device_is_saved_as_a_node_and_that_is_said() {
    let sandbox = Sandbox::with_repository();
    let device = Loop::with(&sandbox.path("disk"), &noise(MIB, 5));
    let said = sandbox.run(["--json", "backup", device.name()]);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("only with --read-devices"), "{said:?}");
    assert_eq!(number(&said.last_message(), "total_bytes_processed"), 0);
    let none = sandbox.run(["backup", "--read-devices", "src"]);
    assert_eq!(none.code, 0, "{none:?}");
    assert!(none.err.contains("has no effect"), "{none:?}");
}

#[test]
fn a_restore_onto_a_device_that_is_killed_is_made_whole_by_the_same_command() {
    let sandbox = Sandbox::with_repository();
    let content = noise(96 * MIB, 6);
    let source = Loop::with(&sandbox.path("source"), &content);
    save_device(&sandbox, &source);
    let to = Loop::with(&sandbox.path("to"), &vec![0xa5; content.len()]);
    let restore = [
        "restore",
        "latest:volume",
        "--to-device",
        to.name(),
        "--yes",
    ];
    // The kernel goes on counting from what had the device before.
    let before = to.written();
    let mut child = start(&sandbox, restore);
    while to.written() - before < 16 << 20 {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before");
        std::thread::yield_now();
    }
    send(&child, Signal::KILL);
    assert_eq!(end(child).code, -1);
    let report = restore_onto(&sandbox, "volume", to.path(), "--yes");
    let written = number(&report, "bytes_written");
    assert!(written < content.len() as u64, "all was written again");
    assert!(to.read() == content, "not the same");
}
