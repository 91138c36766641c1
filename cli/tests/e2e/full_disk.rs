//! A disk that is full: the run fails in clear words, nothing refers to what is missing, and the
//! next run succeeds once there is room.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    runs::{bytes_in, needs_root, noise, said, save, well},
    sandbox::Sandbox,
    tree::{assert_same, read},
};

/// A file system of its own; gone with the value.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// Mounts one of a size; options may follow it.
    pub(crate) fn new(at: &Path, size: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let option = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &option, "none"])
            .arg(at)
            .status();
        assert!(mounted.unwrap().success(), "root, but may not mount");
        Self(at.to_owned())
    }

    /// Mounts a folder at a second place, where nothing can be written.
    pub(crate) fn read_only(folder: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let bind = Command::new("mount")
            .arg("--bind")
            .args([folder, at])
            .status();
        assert!(bind.unwrap().success(), "root, but may not mount");
        let mount = Self(at.to_owned());
        let fix = Command::new("mount")
            .args(["-o", "remount,ro,bind"])
            .arg(at)
            .status();
        assert!(fix.unwrap().success(), "root, but may not mount read-only");
        mount
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A failure shows in the removal of the folder.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_the_backup_and_nothing_else() {
    needs_root("a file system of a chosen size is mounted");
    let sandbox = Sandbox::empty();
    let _mount = Mount::new(&sandbox.path("repo"), "24m");
    sandbox.write("src/a.txt", b"alpha\n");
    well(&sandbox, ["-q", "--pack-size", "4", "init"]);
    save(&sandbox, "src");
    let ballast = sandbox.path("repo/ballast");
    fs::write(&ballast, vec![0; 14 << 20]).unwrap();
    sandbox.write("big/file", &noise(14 << 20, 1));
    let full = sandbox.run(["backup", "big"]);
    assert_eq!(full.code, 1, "{full:?}");
    assert!(full.err.contains("no space left"), "{full:?}");
    assert!(full.err.contains("hint: `strongroom forget`"), "{full:?}");
    well(&sandbox, ["check", "--read-data"]);
    assert_eq!(sandbox.run(["list", "snapshots"]).out.lines().count(), 1);
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_same(&read(&sandbox.path("src")), &read(&sandbox.path("to/src")));
    fs::remove_file(ballast).unwrap();
    well(&sandbox, ["-q", "prune"]);
    save(&sandbox, "big");
    well(&sandbox, ["check", "--read-data"]);
    well(
        &sandbox,
        ["restore", "latest", "--path", "big", "--target", "to"],
    );
    assert_same(&read(&sandbox.path("big")), &read(&sandbox.path("to/big")));
}

#[test]
fn on_a_disk_without_a_free_byte_forget_and_prune_make_room_from_the_reserve() {
    needs_root("a file system of a chosen size is mounted");
    let sandbox = Sandbox::empty();
    let _mount = Mount::new(&sandbox.path("repo"), "48m");
    sandbox.write("src/a.txt", b"alpha\n");
    sandbox.write("big/file", &noise(8 << 20, 1));
    well(&sandbox, ["-q", "--pack-size", "4", "init"]);
    assert!(sandbox.path("repo/reserve").exists(), "no reserve");
    save(&sandbox, "src");
    save(&sandbox, "big");
    let newest = sandbox.run(["list", "snapshots"]).out;
    let newest = newest.lines().find(|id| {
        let said = sandbox.run(["ls", id]);
        said.out.contains("big/file")
    });
    fill(&sandbox.path("repo/ballast"));
    let full = sandbox.run(["backup", "src"]);
    assert_eq!(full.code, 1, "{full:?}");
    assert!(full.err.contains("no space left"), "{full:?}");
    let before = bytes_in(&sandbox.path("repo/packs"));
    // What the hint says to do.
    well(&sandbox, ["-q", "forget", newest.unwrap()]);
    let pruned = sandbox.run(["prune"]);
    assert_eq!(pruned.code, 0, "{pruned:?}");
    assert!(before - bytes_in(&sandbox.path("repo/packs")) >= 8 << 20);
    // The ballast is still there: the room is what the prune has made.
    save(&sandbox, "src");
    well(&sandbox, ["check", "--read-data"]);
    well(&sandbox, ["restore", "latest", "--target", "to"]);
    assert_same(&read(&sandbox.path("src")), &read(&sandbox.path("to/src")));
}

/// Writes until the disk is full.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    for len in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; len]).is_ok() {}
    }
}

#[test]
fn a_full_disk_fails_a_restore_in_clear_words_and_leaves_no_half_file() {
    needs_root("a file system of a chosen size is mounted");
    let sandbox = Sandbox::with_repository();
    sandbox.write("big/fits", &noise(1 << 20, 1));
    sandbox.write("big/large", &noise(12 << 20, 2));
    save(&sandbox, "big");
    let _mount = Mount::new(&sandbox.path("to"), "8m");
    let full = sandbox.run(["restore", "latest", "--target", "to"]);
    assert_eq!(full.code, 1, "{full:?}");
    assert!(
        full.err.contains("big/large") && full.err.contains("No space left"),
        "{full:?}"
    );
    assert!(!sandbox.path("to/big/large").exists());
    // Whichever of the two found the disk full first: what is there is whole.
    let source = fs::read(sandbox.path("big/fits")).unwrap();
    match fs::read(sandbox.path("to/big/fits")) {
        Ok(restored) => assert!(restored == source),
        Err(_) => assert!(full.err.contains("big/fits"), "{full:?}"),
    }
}

#[test]
fn a_limit_on_the_size_of_files_fails_the_backup_and_the_next_one_succeeds() {
    let sandbox = Sandbox::with_repository();
    sandbox.write("big/file", &noise(12 << 20, 1));
    let limited = |sandbox: &Sandbox| {
        let program = sandbox.command();
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().current_dir(sandbox.path(""));
        for (name, value) in program.get_envs() {
            shell.env(name, value.unwrap());
        }
        // 512 bytes or 1 KiB each, as the shell has it: below the size of a pack in any case.
        let line = "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\"";
        shell
            .args(["-c", line])
            .arg(program.get_program())
            .args(["backup", "big"]);
        shell
    };
    let failed = said(limited(&sandbox));
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(
        failed.err.contains("File too large") || failed.err.contains("file too large"),
        "{failed:?}"
    );
    assert_eq!(sandbox.run(["list", "snapshots"]).out, "");
    save(&sandbox, "big");
    well(&sandbox, ["check", "--read-data"]);
}
