//! A disk that the tests serve themselves: a file system in user space, kept in memory, that is as
//! slow as it is told to be and fails when it is told to. It speaks as much of the kernel's FUSE
//! protocol (version 7.31, native byte order) as a repository needs, and knows neither files
//! without names nor attributes: both are answered by the kernel and met by fallbacks.
//!
//! `tree` is what it holds, `wire` the bytes of the protocol, `fault` what goes wrong and when.

mod fault;
mod tree;
mod wire;

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

pub(crate) use self::{
    fault::{Effect, Fault, Meter},
    tree::Tree,
};
use self::{
    fault::{Op, Verdict},
    wire::{Reply, Request},
};

const IO: i32 = -5;
/// What a request with no sender any more is answered with by the device.
const GONE: i32 = 2;

/// What the disk holds and what befalls it.
struct Served {
    tree: Tree,
    meter: Meter,
    /// Reads of the page here fail.
    bad_page: Option<u64>,
}

/// The mount; unmounted with the value.
pub(crate) struct Disk {
    at: PathBuf,
    server: Option<JoinHandle<()>>,
    served: Arc<Mutex<Served>>,
}

impl Disk {
    /// Mounts at `at` a disk that holds `tree`, with so many bytes a second if it is to be slow;
    /// says why where that is not to be had.
    pub(crate) fn mount(at: &Path, tree: Tree, pace: Option<u64>) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root mounts file systems".to_owned());
        }
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = device.map_err(|error| format!("/dev/fuse: {error}"))?;
        fs::create_dir_all(at).map_err(|error| format!("{}: {error}", at.display()))?;
        let input = device.try_clone().map_err(|error| error.to_string())?;
        // The mounting program finds the device as its standard input.
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o"])
            .arg("fd=0,rootmode=40000,user_id=0,group_id=0,nosuid,nodev")
            .arg("strongroom-test")
            .arg(at)
            .stdin(Stdio::from(input))
            .output()
            .map_err(|error| format!("mount: {error}"))?;
        if !mounted.status.success() {
            return Err(String::from_utf8_lossy(&mounted.stderr).into_owned());
        }
        let served = Arc::new(Mutex::new(Served {
            tree,
            meter: Meter::default(),
            bad_page: None,
        }));
        let shared = Arc::clone(&served);
        let server = thread::spawn(move || serve(device, &shared, pace));
        Ok(Self {
            at: at.to_owned(),
            server: Some(server),
            served,
        })
    }

    /// Begins to count anew, with this fault or none.
    pub(crate) fn set(&self, fault: Option<Fault>) {
        self.served.lock().unwrap().meter = Meter::new(fault);
    }

    /// From now on a page of 4 KiB cannot be read, of whatever file.
    pub(crate) fn fail_reads_of_page(&self, offset: u64) {
        self.served.lock().unwrap().bad_page = Some(offset);
    }

    /// What was counted since.
    pub(crate) fn meter(&self) -> Meter {
        self.served.lock().unwrap().meter.clone()
    }

    /// What is there once it is unmounted; files that are open without a name are not.
    pub(crate) fn tree(&self) -> Tree {
        self.served.lock().unwrap().tree.unmounted()
    }

    /// What is there now, of which not all is synced.
    pub(crate) fn tree_as_it_is(&self) -> Tree {
        self.served.lock().unwrap().tree.clone()
    }

    /// What is there once the power is back that was cut, now or by a fault.
    pub(crate) fn tree_after_power_cut(&self) -> Tree {
        self.served.lock().unwrap().tree.after_power_cut()
    }

    /// The names that are there in its root, and how many files it ever had.
    pub(crate) fn names(&self) -> (usize, usize) {
        let served = self.served.lock().unwrap();
        (served.tree.names_in_root(), served.tree.files_made())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.at).status();
        // Where it is still mounted its server would not end.
        if unmounted.is_ok_and(|status| status.success())
            && let Some(server) = self.server.take()
        {
            let _ = server.join();
        }
    }
}

/// Answers requests until the file system is unmounted.
fn serve(mut device: File, served: &Mutex<Served>, pace: Option<u64>) {
    let mut buffer = vec![0; wire::REQUEST];
    // When the disk will have done all that it was asked for.
    let mut busy_until = Instant::now();
    loop {
        let len = match device.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // A request that was taken back.
            Err(error) if error.raw_os_error() == Some(GONE) => continue,
            // Unmounted.
            Err(_) => return,
        };
        let request = Request(&buffer[..len]);
        let Some(answer) = served.lock().unwrap().answer(&request) else {
            continue;
        };
        if let Some(bytes_per_second) = pace {
            let moved = request.transferred(&answer);
            let takes = Duration::from_nanos(moved * 1_000_000_000 / bytes_per_second);
            busy_until = busy_until.max(Instant::now()) + takes;
            // This is the pace of the disk, and nothing that a test waits for.
            while Instant::now() < busy_until {
                thread::park_timeout(busy_until.saturating_duration_since(Instant::now()));
            }
        }
        // A request whose sender is gone wants no answer.
        let _ = device.write(&wire::reply(&request, answer));
    }
}

impl Served {
    /// What is answered; none where no answer is wanted.
    fn answer(&mut self, request: &Request<'_>) -> Option<Reply> {
        if request.kind() == wire::READ
            && let Some(bad) = self.bad_page
        {
            let (offset, len) = (request.u64(8), u64::from(request.u32(16)));
            if offset < bad + 4096 && bad < offset + len {
                return Some(Err(IO));
            }
        }
        let Some(op) = Op::of(request.kind()) else {
            return self.tree.answer(request, None);
        };
        let tree = &self.tree;
        let verdict = self.meter.judge(op, || tree.place(request));
        match verdict {
            Verdict::Pass => self.tree.answer(request, None),
            Verdict::Short => self.tree.answer(request, Some(wire::half(request))),
            Verdict::Refuse(errno) => {
                if op == Op::Sync {
                    // What was written and not synced is what a failed sync loses, however well
                    // the next one goes.
                    self.tree.lose(request.node());
                }
                Some(Err(errno))
            }
            Verdict::LoseAnswer => {
                let answer = self.tree.answer(request, None)?;
                Some(answer.and(Err(IO)))
            }
        }
    }
}
