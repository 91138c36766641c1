//! Block devices to test with: loop devices over files, as root only. A test that uses them fails
//! where they are not to be had.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::runs::needs_root;

/// A loop device; detached with the value.
pub(crate) struct Loop {
    device: PathBuf,
}

impl Loop {
    /// Over a file that is there; options of `losetup` may be given.
    pub(crate) fn over(file: &Path, options: &[&str]) -> Self {
        needs_root("loop devices are root's");
        make_nodes();
        // Others may take the free one first.
        for _ in 0..50 {
            let mut losetup = Command::new("losetup");
            losetup.args(options).args(["--find", "--show"]).arg(file);
            let taken = output(&mut losetup);
            if taken.status.success() {
                let device = String::from_utf8(taken.stdout).unwrap();
                let device = PathBuf::from(device.trim());
                return Self { device };
            }
            let said = String::from_utf8_lossy(&taken.stderr);
            assert!(said.contains("busy"), "no loop device: {said}");
        }
        panic!("others keep taking the free loop device");
    }

    /// Over a new file with this content.
    pub(crate) fn with(file: &Path, content: &[u8]) -> Self {
        fs::write(file, content).unwrap();
        Self::over(file, &[])
    }

    pub(crate) fn path(&self) -> &Path {
        &self.device
    }

    /// As text, to be typed.
    pub(crate) fn name(&self) -> &str {
        self.device.to_str().unwrap()
    }

    /// Its content.
    pub(crate) fn read(&self) -> Vec<u8> {
        fs::read(&self.device).unwrap()
    }

    /// Writes through the device.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) {
        let device = fs::File::options().write(true).open(&self.device).unwrap();
        device.write_all_at(bytes, offset).unwrap();
        device.sync_all().unwrap();
    }

    /// Bytes that were written to it so far, as the kernel counts them.
    pub(crate) fn written(&self) -> u64 {
        let name = self.device.file_name().unwrap();
        let stat = Path::new("/sys/block").join(name).join("stat");
        let stat = fs::read_to_string(stat).unwrap();
        let sectors = stat.split_whitespace().nth(6).unwrap();
        sectors.parse::<u64>().unwrap() * 512
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Where it is still mounted it goes with the mount.
        let _ = Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

/// Containers often have few nodes, and none that appear by themselves.
fn make_nodes() {
    for minor in 0..64 {
        let node = format!("/dev/loop{minor}");
        let (mode, kind) = (Mode::RUSR | Mode::WUSR, FileType::BlockDevice);
        match mknodat(CWD, &node, kind, mode, makedev(7, minor)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => panic!("cannot make {node}: {errno}"),
        }
    }
}

/// A mounted device; unmounted with the value.
pub(crate) struct Mounted<'l> {
    at: PathBuf,
    frozen: bool,
    _device: &'l Loop,
}

impl<'l> Mounted<'l> {
    pub(crate) fn new(device: &'l Loop, at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-o", options]).arg(device.path()).arg(at);
        must(mount);
        Self {
            at: at.to_owned(),
            frozen: false,
            _device: device,
        }
    }

    /// Lets the file system write what it has, and nothing more.
    pub(crate) fn freeze(&mut self) {
        let mut freeze = Command::new("fsfreeze");
        freeze.arg("-f").arg(&self.at);
        must(freeze);
        self.frozen = true;
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.frozen {
            let _ = Command::new("fsfreeze").arg("-u").arg(&self.at).status();
        }
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

/// Runs a tool of the system, which must succeed.
pub(crate) fn must(mut command: Command) {
    let output = output(&mut command);
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `.ci/prepare test` installs what is missing")
    })
}
