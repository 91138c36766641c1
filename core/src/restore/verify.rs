//! Reads restored files back and compares them with the snapshot: every piece of content is hashed
//! again, zeros are looked at. Reads what the file system now gives, not what was sent to it.
//! Nothing is changed.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::{
    fs::{Advice, fadvise, fstat, fsync},
    io::{Errno, pread},
};
use strongroom_repo::{crypto::BlobKind, id::BlobId};

use super::{Run, add, dir::Dir, select::Progress};
use crate::{
    error::{Error, RestoreAction, Result},
    format::{
        extents::{Content, Extent},
        tree::{Body, TreeEntry},
    },
    node::NodeKind,
    view::{Event, View},
};

/// Bytes that one worker reads in one go.
const JOB_BYTES: u64 = 16 << 20;
/// Bytes of zeros read at once.
const ZEROS: usize = 256 << 10;

/// Compares everything that was written below the page `tree`.
pub(super) fn verify_tree(run: &Run<'_>, tree: BlobId) -> Result<()> {
    let Some(target) = &run.target else {
        return Ok(());
    };
    let view = View::of_tree(run.repo, tree)?;
    let workers = run.options.workers.max(1);
    let (sender, jobs) = bounded(workers * 64);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers)
            .map(|_| {
                let jobs = jobs.clone();
                scope.spawn(move || work(run, &jobs))
            })
            .collect();
        drop(jobs);
        let result = Verifier {
            run,
            view,
            jobs: sender,
            number: 0,
        }
        .run(target.root().clone());
        let mut lost = false;
        for thread in threads {
            lost |= thread.join().is_err();
        }
        if lost { Err(Error::WorkerLost) } else { result }
    })
}

/// A file that is compared, maybe by several workers.
struct Compared {
    dir: Dir,
    name: Vec<u8>,
    path: Vec<u8>,
    size: u64,
    holders: AtomicUsize,
    failed: AtomicBool,
}

/// Some of its content.
struct Job {
    file: Arc<Compared>,
    pieces: Vec<(u64, Extent)>,
}

struct Verifier<'r, 'a> {
    run: &'r Run<'a>,
    view: View<'r>,
    jobs: Sender<Job>,
    number: u64,
}

struct Level {
    name: Vec<u8>,
    progress: Progress,
    dir: Option<Dir>,
}

impl Verifier<'_, '_> {
    fn run(mut self, root: Dir) -> Result<()> {
        let mut walk = self.view.walk_all();
        let mut levels = vec![Level {
            name: Vec::new(),
            progress: self.run.selection.start(),
            dir: Some(root),
        }];
        while let Some(event) = walk.next_event() {
            if self.run.is_over() {
                return Err(Error::Cancelled);
            }
            let Some(level) = levels.last() else {
                return Err(Error::WorkerLost);
            };
            match event {
                Event::Entry(entry) if matches!(entry.body, Body::Dir(_)) => {
                    let progress = self.run.selection.step(&level.progress, &entry.node.name);
                    let choice = self.run.selection.choose(&progress);
                    if choice.wanted || choice.descend {
                        levels.push(Level {
                            name: entry.node.name,
                            progress,
                            dir: None,
                        });
                    } else {
                        walk.skip();
                    }
                }
                Event::Entry(entry) => {
                    self.number += 1;
                    if self.run.was_written(self.number) {
                        let path = walk.path().as_bytes().to_vec();
                        match open_levels(&mut levels) {
                            Ok(dir) => self.file(dir, &entry, path)?,
                            Err(error) => self.run.report_file(&path, error),
                        }
                    }
                }
                Event::Leave => {
                    levels.pop();
                }
                // Told when it was restored.
                Event::Damaged(_) => {}
            }
        }
        Ok(())
    }

    fn file(&self, dir: Dir, entry: &TreeEntry, path: Vec<u8>) -> Result<()> {
        let (Body::File(content), NodeKind::File { size }) = (&entry.body, &entry.node.kind) else {
            return Ok(());
        };
        let file = Arc::new(Compared {
            dir,
            name: entry.node.name.clone(),
            path,
            size: *size,
            holders: AtomicUsize::new(1),
            failed: AtomicBool::new(false),
        });
        let result = self.send_pieces(&file, content);
        file.let_go(self.run);
        result
    }

    fn send_pieces(&self, file: &Arc<Compared>, content: &Content) -> Result<()> {
        let mut offset = 0_u64;
        let mut job = file.job();
        let mut bytes = 0_u64;
        for extent in self.view.extents(content) {
            let extent = match extent {
                Ok(extent) => extent,
                Err(error) => {
                    file.fail(self.run, &error);
                    break;
                }
            };
            job.pieces.push((offset, extent));
            offset = offset.saturating_add(extent.len());
            bytes = bytes.saturating_add(extent.len());
            if bytes >= JOB_BYTES {
                let full = std::mem::replace(&mut job, file.job());
                self.jobs.send(full).map_err(|_| Error::WorkerLost)?;
                bytes = 0;
            }
        }
        self.jobs.send(job).map_err(|_| Error::WorkerLost)
    }
}

/// Opens the directories of the levels that are not open yet.
fn open_levels(levels: &mut [Level]) -> Result<Dir> {
    let first = levels
        .iter()
        .rposition(|level| level.dir.is_some())
        .unwrap_or(0);
    let (above, below) = levels
        .split_at_mut_checked(first + 1)
        .ok_or(Error::WorkerLost)?;
    let mut at = above
        .last()
        .and_then(|level| level.dir.clone())
        .ok_or(Error::WorkerLost)?;
    for level in below {
        at = at.look_into(&level.name)?;
        level.dir = Some(at.clone());
    }
    Ok(at)
}

impl Compared {
    fn job(self: &Arc<Self>) -> Job {
        self.holders.fetch_add(1, Ordering::Relaxed);
        Job {
            file: Arc::clone(self),
            pieces: Vec::new(),
        }
    }

    fn fail(&self, run: &Run<'_>, error: &Error) {
        if !self.failed.swap(true, Ordering::AcqRel) {
            run.report(error);
        }
    }

    fn let_go(&self, run: &Run<'_>) {
        let is_last = self.holders.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last && !self.failed.load(Ordering::Acquire) && !run.is_over() {
            add(&run.counts.files_verified, 1);
        }
    }
}

fn work(run: &Run<'_>, jobs: &Receiver<Job>) {
    let mut buffer = Vec::new();
    for job in jobs {
        if run.is_over() {
            continue;
        }
        if let Err(error) = compare(run, &job, &mut buffer) {
            job.file.fail(run, &error);
        }
        job.file.let_go(run);
    }
}

fn compare(run: &Run<'_>, job: &Job, buffer: &mut Vec<u8>) -> Result<()> {
    let file = &*job.file;
    let fd = file.dir.open_file(&file.name)?;
    let stat = fstat(&fd).map_err(|errno| file.refused(errno))?;
    // What the page cache says is what it was given: onto the disk with it, and read from there.
    fsync(&fd).map_err(|errno| file.refused(errno))?;
    let _kept = fadvise(&fd, 0, None, Advice::DontNeed);
    let found = u64::try_from(stat.st_size).unwrap_or(0);
    if found != file.size {
        let offset = found.min(file.size);
        return Err(file.differs(offset));
    }
    for &(offset, extent) in &job.pieces {
        if run.is_over() || file.failed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let is_right = match extent {
            Extent::Data { len, id } => {
                buffer.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
                file.read(&fd, offset, buffer)? && run.repo.blob_id(BlobKind::Data, buffer) == id
            }
            Extent::Hole { len } | Extent::Zero { len } => {
                file.is_zero(run, &fd, offset, len, buffer)?
            }
        };
        if !is_right {
            return Err(file.differs(offset));
        }
    }
    Ok(())
}

impl Compared {
    fn differs(&self, offset: u64) -> Error {
        Error::Differs {
            path: self.path.clone(),
            offset,
        }
    }

    fn refused(&self, errno: Errno) -> Error {
        Error::Restore {
            action: RestoreAction::Read,
            path: self
                .dir
                .path()
                .join(crate::path::escaped(&self.name).to_string()),
            source: errno.into(),
        }
    }

    /// Fills `buffer`; false if the file ends before.
    fn read(&self, fd: &OwnedFd, mut offset: u64, buffer: &mut [u8]) -> Result<bool> {
        let mut rest = buffer;
        while !rest.is_empty() {
            match pread(fd, &mut *rest, offset) {
                Ok(0) => return Ok(false),
                Ok(count) => {
                    rest = rest.get_mut(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(self.refused(errno)),
            }
        }
        Ok(true)
    }

    fn is_zero(
        &self,
        run: &Run<'_>,
        fd: &OwnedFd,
        offset: u64,
        len: u64,
        buffer: &mut Vec<u8>,
    ) -> Result<bool> {
        let mut done = 0;
        while done < len && !run.is_over() {
            let part = usize::try_from(len - done).unwrap_or(ZEROS).min(ZEROS);
            buffer.resize(part, 0);
            if !self.read(fd, offset + done, buffer)? || buffer.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            done += part as u64;
        }
        Ok(true)
    }
}
