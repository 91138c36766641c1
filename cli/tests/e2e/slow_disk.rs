//! A slow disk: a file system in user space that this test serves itself, one flat folder kept in
//! memory, whose transfers take a given time. It speaks as much of the kernel's FUSE protocol
//! (version 7.31, native byte order) as files in one folder need, and knows neither files without
//! names nor direct I/O of its own: both are answered by the kernel and met by fallbacks.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::runs::is_root;

/// Bytes of one transfer at most.
const MAX_WRITE: u32 = 128 << 10;
/// A request with its header.
const REQUEST: usize = MAX_WRITE as usize + 4096;
const ROOT: u64 = 1;
const NOENT: i32 = -2;
const IO: i32 = -5;
const NOSYS: i32 = -38;

/// What the folder holds, by inode. A file that lost its name stays until it is closed.
#[derive(Default)]
struct Folder {
    names: HashMap<Vec<u8>, u64>,
    files: HashMap<u64, Vec<u8>>,
    last: u64,
    /// Names that were ever given.
    made: Vec<Vec<u8>>,
    /// Reads of the page here fail.
    bad_page: Option<u64>,
}

/// The mount; unmounted with the value.
pub(crate) struct SlowDisk {
    at: PathBuf,
    server: Option<JoinHandle<()>>,
    folder: Arc<Mutex<Folder>>,
}

impl SlowDisk {
    /// Mounts at `at` a disk of so many bytes a second; says so and returns none where that is
    /// not to be had.
    pub(crate) fn mount(at: &Path, bytes_per_second: u64) -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let device = match device {
            Ok(device) if is_root() => device,
            Ok(_) => return not_tested("not root"),
            Err(error) => return not_tested(&format!("/dev/fuse: {error}")),
        };
        fs::create_dir_all(at).unwrap();
        let folder = Arc::new(Mutex::new(Folder {
            last: ROOT,
            ..Folder::default()
        }));
        // The mounting program finds the device as its standard input.
        let mounted = Command::new("mount")
            .args(["-i", "-t", "fuse", "-o"])
            .arg("fd=0,rootmode=40000,user_id=0,group_id=0,nosuid,nodev")
            .arg("slow")
            .arg(at)
            .stdin(Stdio::from(device.try_clone().unwrap()))
            .output()
            .unwrap();
        if !mounted.status.success() {
            return not_tested(&String::from_utf8_lossy(&mounted.stderr));
        }
        let served = Arc::clone(&folder);
        let server = thread::spawn(move || serve(device, &served, bytes_per_second));
        Some(Self {
            at: at.to_owned(),
            server: Some(server),
            folder,
        })
    }

    /// From now on a page of 4 KiB cannot be read.
    pub(crate) fn fail_reads_of_page(&self, offset: u64) {
        self.folder.lock().unwrap().bad_page = Some(offset);
    }

    /// The names that are there, and how many there ever were.
    pub(crate) fn names(&self) -> (usize, usize) {
        let folder = self.folder.lock().unwrap();
        (folder.names.len(), folder.made.len())
    }
}

impl Drop for SlowDisk {
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

fn not_tested(why: &str) -> Option<SlowDisk> {
    eprintln!("NOT TESTED, no file system in user space can be mounted here: {why}");
    None
}

/// Answers requests until the file system is unmounted.
fn serve(mut device: File, folder: &Mutex<Folder>, bytes_per_second: u64) {
    let mut buffer = vec![0; REQUEST];
    // When the disk will have done all that it was asked for.
    let mut busy_until = Instant::now();
    loop {
        let len = match device.read(&mut buffer) {
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            // Unmounted; or a request that was taken back.
            Err(error) if error.raw_os_error() == Some(2) => continue,
            Err(_) => return,
        };
        let request = Request(&buffer[..len]);
        let Some(answer) = folder.lock().unwrap().answer(&request) else {
            continue;
        };
        let moved = request.transferred(&answer);
        let takes = Duration::from_nanos(moved * 1_000_000_000 / bytes_per_second);
        busy_until = busy_until.max(Instant::now()) + takes;
        // This is the pace of the disk, and nothing that a test waits for.
        while Instant::now() < busy_until {
            thread::park_timeout(busy_until.saturating_duration_since(Instant::now()));
        }
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(error) => (error, Vec::new()),
        };
        let mut reply = Vec::new();
        reply.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
        reply.extend(i32::to_ne_bytes(error));
        reply.extend(request.u64(8).to_ne_bytes());
        reply.extend(body);
        // A request whose sender is gone wants no answer.
        let _ = device.write(&reply);
    }
}

/// A request: a header of 40 bytes, and what its kind has.
struct Request<'a>(&'a [u8]);

impl Request<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn kind(&self) -> u32 {
        self.u32(4)
    }

    fn node(&self) -> u64 {
        self.u64(16)
    }

    /// The name that begins so far behind the header.
    fn name(&self, at: usize) -> Vec<u8> {
        let bytes = self.0[40 + at..].iter();
        bytes.copied().take_while(|byte| *byte != 0).collect()
    }

    /// Bytes of files that it moves.
    fn transferred(&self, answer: &Result<Vec<u8>, i32>) -> u64 {
        match (self.kind(), answer) {
            (READ, Ok(body)) => body.len() as u64,
            (WRITE, Ok(_)) => u64::from(self.u32(40 + 16)),
            _ => 0,
        }
    }
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const UNLINK: u32 = 10;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FSYNC: u32 = 20;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

impl Folder {
    /// What is answered; none where no answer is wanted.
    fn answer(&mut self, request: &Request<'_>) -> Option<Result<Vec<u8>, i32>> {
        let node = request.node();
        Some(match request.kind() {
            FORGET | BATCH_FORGET | INTERRUPT => return None,
            INIT => Ok(init()),
            LOOKUP => match self.names.get(&request.name(0)) {
                Some(node) => Ok(self.entry(*node)),
                None => Err(NOENT),
            },
            GETATTR | SETATTR => Ok(self.attributes(node)),
            UNLINK => self
                .names
                .remove(&request.name(0))
                .map(|_| Vec::new())
                .ok_or(NOENT),
            CREATE => Ok(self.create(request.name(16))),
            OPEN | OPENDIR => Ok(words(&[0, 0])),
            READ if self.is_bad(request.u64(48), request.u32(56)) => Err(IO),
            READ => Ok(self.read(node, request.u64(48), request.u32(56))),
            WRITE => Ok(self.write(node, request)),
            STATFS => Ok(statfs()),
            FSYNC | FLUSH | READDIR | RELEASEDIR => Ok(Vec::new()),
            RELEASE => {
                if !self.names.values().any(|named| *named == node) {
                    self.files.remove(&node);
                }
                Ok(Vec::new())
            }
            _ => Err(NOSYS),
        })
    }

    fn create(&mut self, name: Vec<u8>) -> Vec<u8> {
        self.last += 1;
        self.files.insert(self.last, Vec::new());
        self.made.push(name.clone());
        self.names.insert(name, self.last);
        let mut out = self.entry(self.last);
        out.extend(words(&[0, 0]));
        out
    }

    fn is_bad(&self, offset: u64, len: u32) -> bool {
        self.bad_page
            .is_some_and(|bad| offset < bad + 4096 && bad < offset + u64::from(len))
    }

    fn read(&self, node: u64, offset: u64, len: u32) -> Vec<u8> {
        let content = self.files.get(&node).map_or(&[][..], Vec::as_slice);
        let start = usize::try_from(offset).unwrap().min(content.len());
        let end = content.len().min(start + len as usize);
        content[start..end].to_vec()
    }

    fn write(&mut self, node: u64, request: &Request<'_>) -> Vec<u8> {
        let (offset, len) = (request.u64(48), request.u32(56));
        let start = usize::try_from(offset).unwrap();
        let bytes = &request.0[80..80 + len as usize];
        let content = self.files.entry(node).or_default();
        content.resize(content.len().max(start + bytes.len()), 0);
        content[start..start + bytes.len()].copy_from_slice(bytes);
        [len, 0].into_iter().flat_map(u32::to_ne_bytes).collect()
    }

    /// A node with its generation and how long all that may be believed.
    fn entry(&self, node: u64) -> Vec<u8> {
        let mut out = words(&[node, 0, 0, 0, 0]);
        out.extend(self.attr(node));
        out
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let mut out = words(&[0, 0]);
        out.extend(self.attr(node));
        out
    }

    fn attr(&self, node: u64) -> Vec<u8> {
        let len = self.files.get(&node).map_or(0, Vec::len) as u64;
        let mut out = words(&[node, len, len.div_ceil(512), 0, 0, 0]);
        let mode = if node == ROOT { 0o40_755 } else { 0o100_600 };
        // Three times nanoseconds, mode, links, owner, group, device, block size, flags.
        for word in [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0_u32] {
            out.extend(word.to_ne_bytes());
        }
        out
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Version 7.31, no capabilities but writes larger than a page.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let mut out = Vec::new();
    // Version, read-ahead, capabilities, requests under way (as the kernel likes), longest write.
    for word in [7, 31, 128 << 10, BIG_WRITES, 0, MAX_WRITE] {
        out.extend(u32::to_ne_bytes(word));
    }
    out.resize(64, 0);
    out
}

/// A disk of 16 GiB, all of it free.
fn statfs() -> Vec<u8> {
    let blocks = 4 << 20;
    let mut out = words(&[blocks, blocks, blocks, 1 << 20, 1 << 20]);
    for word in [4096, 255, 4096_u32] {
        out.extend(word.to_ne_bytes());
    }
    out.resize(80, 0);
    out
}
