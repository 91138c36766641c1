//! Block devices that are in use, too small, read-only, broken, or shrink. These tests need loop
//! devices, and so root.

use std::{fs, path::PathBuf, process::Command};

use rustix::{
    fs::{CWD, FileType, Mode, makedev, mknodat},
    process::Signal,
};

use strongroom_core::error::{Error as CoreError, InUse, RestoreAction};

use crate::{
    disk::{Disk, Tree},
    full_disk::Mount,
    loops::{Loop, Mounted, must},
    runs::{answer, end, halt, noise, send, start, well},
    sandbox::{Said, Sandbox},
};

const MIB: usize = 1 << 20;

/// A sandbox with a snapshot of a file, `img`, of so many bytes.
fn sandbox_with_image(len: usize) -> Sandbox {
    let sandbox = Sandbox::with_repository();
    sandbox.write("img", &noise(len, 7));
    well(&sandbox, ["-q", "backup", "img"]);
    sandbox
}

fn restore(sandbox: &Sandbox, device: &str, option: &str) -> Said {
    let arguments = ["restore", "latest:img", "--to-device", device, option];
    sandbox.run(arguments)
}

/// A run that fails with these words.
fn assert_fails(said: &Said, words: &[&str]) {
    assert_eq!(said.code, 1, "{said:?}");
    for word in words {
        assert!(said.err.contains(word), "{word:?}: {said:?}");
    }
}

#[test]
fn nothing_is_written_without_a_yes_or_onto_what_is_too_small() {
    let sandbox = sandbox_with_image(MIB);
    let device = Loop::with(&sandbox.path("disk"), &vec![0xa5; MIB - 512]);
    let small = format!("has {} bytes, and {MIB} are to be written", MIB - 512);
    assert_fails(
        &restore(&sandbox, device.name(), "--yes"),
        &[&small, "larger"],
    );
    assert_fails(&restore(&sandbox, device.name(), "-n"), &[&small]);
    let asked = sandbox.run(["restore", "latest:img", "--to-device", device.name()]);
    assert_fails(&asked, &["nothing was written", "--yes"]);
    assert!(device.read().iter().all(|byte| *byte == 0xa5));
}

#[test]
fn only_a_file_is_written_and_only_onto_a_device_or_a_file_that_is_there() {
    let sandbox = sandbox_with_image(MIB);
    assert_fails(
        &restore(&sandbox, "/dev/null", "--yes"),
        &["neither a block device nor a regular file"],
    );
    assert_fails(
        &restore(&sandbox, ".", "--yes"),
        &["neither a block device"],
    );
    assert_fails(&restore(&sandbox, "nowhere", "--yes"), &["No such file"]);
    assert!(!sandbox.path("nowhere").exists());
    fs::write(sandbox.path("file"), vec![1; MIB]).unwrap();
    let folder = sandbox.run(["restore", "latest", "--to-device", "file", "--yes"]);
    assert_fails(&folder, &["is not a file", "SNAPSHOT:"]);
    let both = sandbox.run([
        "restore",
        "latest:img",
        "--to-device",
        "file",
        "--target",
        "to",
    ]);
    assert_fails(&both, &["cannot be used with"]);
    assert_eq!(restore(&sandbox, "file", "--yes").code, 0);
    assert!(fs::read(sandbox.path("file")).unwrap() == noise(MIB, 7));
}

#[test]
fn a_device_in_use_is_refused_unless_forced() {
    let sandbox = sandbox_with_image(MIB);
    fs::write(sandbox.path("disk"), vec![0; 16 * MIB]).unwrap();
    let device = Loop::over(&sandbox.path("disk"), &[]);
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F"]).arg(device.path());
    must(mkfs);
    let at = sandbox.path("mounted");
    {
        let _mounted = Mounted::new(&device, &at, "ro");
        // The file itself: the cache of the device has what the file system changes in memory.
        let file = sandbox.path("disk");
        let before = fs::read(&file).unwrap();
        let words = ["is in use: mounted at", "mounted\n", "--force"];
        assert_fails(&restore(&sandbox, device.name(), "--yes"), &words);
        assert!(fs::read(&file).unwrap() == before, "something was written");
        // The file under a loop device is held by nobody, and in use all the same.
        let file = file.to_str().unwrap();
        let in_use = CoreError::DeviceInUse {
            path: PathBuf::from("$SANDBOX/disk"),
            by: InUse::Loop(PathBuf::from(device.name())),
        };
        let rests = in_use.to_string();
        assert_fails(&restore(&sandbox, file, "--yes"), &[&rests, "--force"]);
        assert!(fs::read(file).unwrap() == before, "something was written");
    }
    let forced = sandbox.run([
        "restore",
        "latest:img",
        "--to-device",
        "disk",
        "--yes",
        "--force",
    ]);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert!(fs::read(sandbox.path("disk")).unwrap()[..MIB] == noise(MIB, 7));
}

#[test]
fn a_device_that_may_not_be_written_is_named() {
    let sandbox = sandbox_with_image(MIB);
    fs::write(sandbox.path("disk"), vec![0; MIB]).unwrap();
    let device = Loop::over(&sandbox.path("disk"), &["--read-only"]);
    let refused = restore(&sandbox, device.name(), "--yes");
    assert_fails(&refused, &["cannot open", device.name()]);
    let compared = restore(&sandbox, device.name(), "-n");
    assert_eq!(compared.code, 0, "{compared:?}");
}

#[test]
fn a_device_that_fails_while_it_is_written_ends_the_run_at_that_place() {
    let sandbox = sandbox_with_image(24 * MIB);
    let _mount = Mount::new(&sandbox.path("small"), "8m");
    let file = fs::File::create(sandbox.path("small/disk")).unwrap();
    file.set_len(24 << 20).unwrap();
    let device = Loop::over(&sandbox.path("small/disk"), &[]);
    let failed = restore(&sandbox, device.name(), "--yes");
    let refused = CoreError::DeviceRefused {
        action: RestoreAction::Write,
        path: PathBuf::from(device.name()),
        offset: 0,
        source: std::io::Error::other("whatever it said"),
    };
    let words = refused.to_string();
    assert_fails(&failed, &[words.trim_end_matches('0'), "partly old"]);
}

#[test]
fn a_device_that_cannot_be_read_at_some_place_is_named_and_left_out() {
    let sandbox = Sandbox::with_repository();
    let slow = Disk::mount(&sandbox.path("slow"), Tree::default(), None);
    let slow = slow.unwrap_or_else(|why| panic!("needs root and /dev/fuse: {why}"));
    fs::write(sandbox.path("slow/disk"), noise(24 * MIB, 8)).unwrap();
    let device = Loop::over(&sandbox.path("slow/disk"), &["--direct-io=off"]);
    let bad = 17 * MIB as u64 + 4096;
    slow.fail_reads_of_page(bad);
    let said = sandbox.run(["--json", "backup", "--read-devices", device.name(), "src"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains(device.name()), "{said:?}");
    assert!(said.err.contains("Input/output error"), "{said:?}");
    // The system reads ahead of what is asked for, so it may fail a little earlier.
    let at = said.err.split("at byte ").nth(1).unwrap();
    let at: String = at.chars().take_while(char::is_ascii_digit).collect();
    let at: u64 = at.parse().unwrap();
    assert!((bad - (1 << 20)..=bad).contains(&at), "{at} for {bad}");
    let list = sandbox.run(["ls", "latest"]).out;
    assert!(list.contains("src/a.txt"), "{list}");
    assert!(!list.lines().any(|line| line == device.name()), "{list}");
    drop(device);
}

#[test]
fn a_device_that_cannot_be_opened_is_named_and_left_out() {
    let sandbox = Sandbox::with_repository();
    let node = sandbox.path("nothing");
    // A number of those that are for experiments: nobody has it.
    let (kind, mode) = (FileType::BlockDevice, Mode::RUSR | Mode::WUSR);
    mknodat(CWD, &node, kind, mode, makedev(241, 7)).unwrap();
    let said = sandbox.run(["backup", "--read-devices", "nothing", "src"]);
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.err.contains("cannot open $SANDBOX/nothing"),
        "{said:?}"
    );
    let list = sandbox.run(["ls", "latest"]).out;
    assert!(list.contains("a.txt"), "{list}");
    assert!(!list.lines().any(|line| line == "/nothing"), "{list}");
}

#[test]
fn a_device_that_shrinks_while_it_is_read_is_named_and_left_out() {
    let sandbox = Sandbox::with_repository();
    let device = Loop::with(&sandbox.path("disk"), &noise(192 * MIB, 9));
    let mut child = start(&sandbox, ["backup", "--read-devices", device.name(), "src"]);
    // It has the device open and knows how long it is.
    while position(&child, device.path()) != Some(192 << 20) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before");
        std::thread::yield_now();
    }
    assert!(halt(&child), "it ended before");
    let disk = fs::File::options().write(true).open(sandbox.path("disk"));
    disk.unwrap().set_len(1 << 20).unwrap();
    let mut resize = Command::new("losetup");
    resize.arg("-c").arg(device.path());
    must(resize);
    send(&child, Signal::CONT);
    let said = end(child);
    assert_eq!(said.code, 3, "{said:?}");
    let words = format!(
        "{} had {} bytes and has {} now",
        device.name(),
        192 << 20,
        1 << 20
    );
    assert!(said.err.contains(&words), "{said:?}");
    let messages = answer(&sandbox, ["--json", "ls", "latest"]);
    let is_device = |message: &&serde_json::Value| {
        message["path"]
            .as_str()
            .is_some_and(|path| path == device.name())
    };
    assert_eq!(messages.iter().filter(is_device).count(), 0);
}

/// Where a child stands in a file that it has open.
fn position(child: &std::process::Child, path: &std::path::Path) -> Option<u64> {
    let id = child.id();
    let handles = fs::read_dir(format!("/proc/{id}/fd")).ok()?;
    let positions = handles.flatten().filter_map(|handle| {
        let target = fs::read_link(handle.path()).ok()?;
        let name = handle.file_name().into_string().ok()?;
        let about = fs::read_to_string(format!("/proc/{id}/fdinfo/{name}")).ok()?;
        let at = about
            .lines()
            .next()?
            .strip_prefix("pos:")?
            .trim()
            .parse()
            .ok()?;
        (target == path).then_some(at)
    });
    positions.max()
}
