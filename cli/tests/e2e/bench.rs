//! `bench` on disks of known kinds: one in memory, for which any processor is too slow, one that
//! is slower than any processor, ext4 on such a one and on what the machine has, and folders that
//! cannot be measured. No figure is compared with
//! another machine's.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command},
    thread,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    disk::{Disk, Tree},
    full_disk::Mount,
    loops::{Loop, Mounted, must},
    runs::{answer, as_nobody, end, needs_root, said, send, start},
    sandbox::Sandbox,
};

const MEMORY: &str = "/dev/shm";

fn job<'a>(told: &'a Value, job: &str, content: &str) -> &'a Value {
    let jobs = told["jobs"].as_array().unwrap();
    let found = jobs
        .iter()
        .find(|told| told["job"] == job && told["content"] == content);
    found.unwrap()
}

#[test]
fn a_disk_in_memory_leaves_a_backup_waiting_for_the_processor() {
    assert!(
        Path::new(MEMORY).is_dir(),
        "there is no {MEMORY}: mount a tmpfs there"
    );
    let sandbox = Sandbox::empty();
    let dir = tempfile::tempdir_in(MEMORY).unwrap();
    let dir = dir.path().to_str().unwrap();
    let told = answer(
        &sandbox,
        [
            "--json",
            "--compression=better",
            "bench",
            "--size=16M",
            "--seconds=0",
            dir,
        ],
    );
    let [told] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(told["message_type"], "bench");
    assert_eq!(told["compression"], "better");
    assert_eq!(told["disk"]["size"], 16 << 20);
    let text = job(told, "backup", "text");
    assert_eq!(text["bound_by"], "processor", "{told}");
    assert_eq!(text["part"], "encode", "{told}");
    assert_eq!(text["rate"], text["processor_rate"]);
    let known = job(told, "backup", "duplicates");
    assert_eq!(known["bound_by"], "processor");
    assert_eq!(known["disk_rate"], Value::Null);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0);
}

#[test]
fn a_slow_disk_is_named_and_nothing_is_left_on_it() {
    let sandbox = Sandbox::empty();
    let disk = Disk::mount(&sandbox.path("slow"), Tree::default(), Some(3 << 20))
        .unwrap_or_else(|why| panic!("needs root and /dev/fuse: {why}"));
    let said = sandbox.run([
        "--json",
        "--compression=fastest",
        "--repo=slow",
        "bench",
        "--size=2M",
        "--seconds=0",
    ]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let told = said.last_message();
    for (name, part) in [("backup", "write"), ("restore", "read")] {
        let noise = job(&told, name, "incompressible");
        assert_eq!(noise["bound_by"], "disk", "{told}");
        assert_eq!(noise["part"], part, "{told}");
        assert_eq!(noise["rate"], noise["disk_rate"]);
        // Not faster than the disk that is served, whatever the machine does beside.
        assert!(noise["rate"].as_u64().unwrap() <= 3 << 20, "{told}");
    }
    let (left, made) = disk.names();
    assert_eq!(left, 0);
    assert!(made > 1, "the way by name was not taken: {made}");
}

/// Bytes of a file system to measure.
const IMAGE: u64 = 24 << 20;

/// A file with an ext4 in it, of which little is written yet.
fn ext4(path: &Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(IMAGE).unwrap();
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args(["-q", "-F", "-E", "nodiscard", "-J", "size=1", "-b", "1024"]);
    mkfs.arg(path);
    must(mkfs);
}

#[test]
fn on_ext4_the_slower_of_disk_and_processor_is_named_with_its_rate() {
    needs_root("a file system is mounted");
    let sandbox = Sandbox::empty();
    ext4(&sandbox.path("image"));
    let device = Loop::over(&sandbox.path("image"), &[]);
    let _mounted = Mounted::new(&device, &sandbox.path("disk"), "rw");
    let before = fs::read_dir(sandbox.path("disk")).unwrap().count();
    let told = answer(
        &sandbox,
        ["--json", "bench", "--size=8M", "--seconds=0", "disk"],
    );
    let [told] = told.as_slice() else {
        panic!("{told:?}")
    };
    assert_eq!(told["disk"]["direct"], true, "{told}");
    for job in told["jobs"].as_array().unwrap() {
        let rate = |key: &str| job[key].as_u64().unwrap_or(u64::MAX);
        let (disk, processor) = (rate("disk_rate"), rate("processor_rate"));
        assert_eq!(rate("rate"), disk.min(processor), "{job}");
        let slower = if disk < processor {
            "disk"
        } else {
            "processor"
        };
        assert_eq!(job["bound_by"], slower, "{job}");
    }
    let after = fs::read_dir(sandbox.path("disk")).unwrap().count();
    assert_eq!(after, before);
}

#[test]
fn a_slow_disk_is_named_below_an_ext4_as_well() {
    needs_root("a file system is mounted");
    let sandbox = Sandbox::empty();
    let slow = sandbox.path("slow");
    let _slow = Disk::mount(&slow, Tree::default(), Some(3 << 20)).unwrap();
    ext4(&slow.join("image"));
    // Past the page cache, which is faster than the disk below.
    let device = Loop::over(&slow.join("image"), &["--direct-io=on"]);
    let _mounted = Mounted::new(&device, &sandbox.path("disk"), "rw");
    let told = answer(
        &sandbox,
        [
            "--json",
            "--compression=fastest",
            "bench",
            "--size=2M",
            "--seconds=0",
            "disk",
        ],
    );
    let [told] = told.as_slice() else {
        panic!("{told:?}")
    };
    for (name, part) in [("backup", "write"), ("restore", "read")] {
        let noise = job(told, name, "incompressible");
        assert_eq!(noise["bound_by"], "disk", "{told}");
        assert_eq!(noise["part"], part, "{told}");
        assert!(noise["rate"].as_u64().unwrap() <= 3 << 20, "{told}");
    }
}

#[test]
fn what_cannot_be_measured_is_told_and_is_exit_code_1() {
    let sandbox = Sandbox::empty();
    sandbox.write("file", b"");
    let cases = [
        (
            ["bench", "missing"],
            "cannot open the folder missing: No such file or directory",
        ),
        (
            ["bench", "file"],
            "cannot open the folder file: Not a directory",
        ),
    ];
    for (arguments, words) in cases {
        let said = sandbox.run(arguments);
        assert_eq!(said.code, 1);
        assert_eq!(said.err, format!("error: {words}\n"));
    }
    let large = sandbox.run(["bench", "--size", "8000P", "."]);
    assert_eq!(large.code, 1);
    assert!(
        large.err.contains("too little to write 7.81 EiB"),
        "{large:?}"
    );
    assert!(large.err.contains("hint: write less with --size"));
    let small = sandbox.run(["bench", "--size", "1K", "."]);
    assert!(small.code == 1 && small.err.contains("at least 1 MiB"));
    fs::create_dir(sandbox.path("closed")).unwrap();
    fs::set_permissions(sandbox.path("closed"), fs::Permissions::from_mode(0o555)).unwrap();
    let mut other = as_nobody(&sandbox);
    other.args(["bench", "closed"]);
    let closed = said(other);
    assert_eq!(closed.code, 1);
    assert_eq!(
        closed.err,
        "error: cannot create a file in closed: Permission denied\n"
    );
    needs_root("a disk is mounted for reading only");
    let _mount = Mount::new(&sandbox.path("finished"), "1m,ro");
    let finished = sandbox.run(["bench", "--size=1M", "finished"]);
    let words = "error: cannot create a file in finished: Read-only file system\n";
    assert_eq!((finished.code, finished.err.as_str()), (1, words));
}

#[test]
fn a_signal_ends_it_and_nothing_is_left() {
    let sandbox = Sandbox::empty();
    fs::create_dir(sandbox.path("disk")).unwrap();
    let mut child = start(&sandbox, ["bench", "--size=1M", "--seconds=60", "disk"]);
    while !has_memory(&child) {
        assert!(child.try_wait().unwrap().is_none(), "it ended early");
        thread::yield_now();
    }
    send(&child, Signal::INT);
    let ended = end(child);
    assert_eq!(ended.code, 130, "{ended:?}");
    assert_eq!(fs::read_dir(sandbox.path("disk")).unwrap().count(), 0);
}

/// Whether a child is at the page cache, which comes after the disk.
fn has_memory(child: &Child) -> bool {
    let Ok(handles) = fs::read_dir(format!("/proc/{}/fd", child.id())) else {
        return false;
    };
    handles.flatten().any(|handle| {
        fs::read_link(handle.path())
            .is_ok_and(|target| target.to_string_lossy().contains("memfd:strongroom-bench"))
    })
}
