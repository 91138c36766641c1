//! System calls that fail on demand, and remember what was called.

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    sync::Mutex,
};

use rustix::{
    fs::{Mode, OFlags},
    io::{Errno, Result},
};

use super::super::sys::{FileStat, Linux, LockMode, Sys, Taken};

/// The calls of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Open,
    Write,
    Read,
    SetDirect,
    ExpectRandom,
    IsCached,
    Sync,
    Stat,
    StatAt,
    SetMode,
    Link,
    Rename,
    Unlink,
    MakeDir,
    Names,
    Allocate,
    FreeBytes,
    IsLocal,
    Lock,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The call does nothing and fails.
    Fail(Errno),
    /// The call works and is reported as failed.
    DoThenFail(Errno),
    /// Only an open for writing fails.
    FailIfWriting(Errno),
    /// No more than so many bytes are moved.
    Short(usize),
    /// So many bytes are said to be free.
    Free(u64),
    /// Other machines may have mounted it.
    Shared,
    /// Somebody removes the source of a link just before.
    UnlinkSource,
}

/// A rule: which call, which occurrence (0: every), what.
type Rule = (Call, u64, Act);

#[derive(Debug)]
pub(super) struct FaultySys {
    plan: Vec<Rule>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    /// Per rule: calls seen, times struck.
    seen: Vec<(u64, u64)>,
    synced: Vec<u64>,
    /// What was synced stays open, so that no other file gets its inode number.
    kept: Vec<OwnedFd>,
}

impl FaultySys {
    pub(super) fn new(plan: &[Rule]) -> Self {
        let state = State {
            seen: vec![(0, 0); plan.len()],
            ..State::default()
        };
        Self {
            plan: plan.to_vec(),
            state: Mutex::new(state),
        }
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.state.lock().unwrap().calls.clone()
    }

    /// The inodes that were synced, also in vain, in order.
    pub(super) fn synced(&self) -> Vec<u64> {
        self.state.lock().unwrap().synced.clone()
    }

    pub(super) fn forget_calls(&self) {
        let mut state = self.state.lock().unwrap();
        state.calls.clear();
        state.synced.clear();
    }

    pub(super) fn all_struck(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.seen.iter().all(|(_, struck)| *struck > 0)
    }

    fn note(&self, call: Call) -> Option<Act> {
        let mut state = self.state.lock().unwrap();
        state.calls.push(call);
        let mut found = None;
        for ((wanted, nth, act), (seen, struck)) in self.plan.iter().zip(&mut state.seen) {
            if *wanted == call {
                *seen += 1;
                if *nth == 0 || nth == seen {
                    *struck += 1;
                    found = Some(*act);
                }
            }
        }
        found
    }

    fn run<T>(&self, call: Call, real: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.note(call) {
            Some(Act::Fail(errno)) => Err(errno),
            Some(Act::DoThenFail(errno)) => real().and(Err(errno)),
            _ => real(),
        }
    }
}

impl Sys for FaultySys {
    fn open(&self, dir: BorrowedFd<'_>, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
        let writing = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        match self.note(Call::Open) {
            Some(Act::Fail(errno)) => Err(errno),
            Some(Act::FailIfWriting(errno)) if writing => Err(errno),
            _ => Linux.open(dir, path, flags, mode),
        }
    }

    fn write(&self, file: BorrowedFd<'_>, parts: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        match self.note(Call::Write) {
            Some(Act::Fail(errno)) => Err(errno),
            Some(Act::Short(most)) => {
                let first = &parts[0][..parts[0].len().min(most)];
                Linux.write(file, &[IoSlice::new(first)], offset)
            }
            _ => Linux.write(file, parts, offset),
        }
    }

    fn read(
        &self,
        file: BorrowedFd<'_>,
        parts: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> Result<usize> {
        match self.note(Call::Read) {
            Some(Act::Fail(errno)) => Err(errno),
            Some(Act::Short(most)) => {
                let most = parts[0].len().min(most);
                let first = IoSliceMut::new(&mut parts[0][..most]);
                Linux.read(file, &mut [first], offset)
            }
            _ => Linux.read(file, parts, offset),
        }
    }

    fn set_direct(&self, file: BorrowedFd<'_>, direct: bool) -> Result<()> {
        self.run(Call::SetDirect, || Linux.set_direct(file, direct))
    }

    fn expect_random(&self, file: BorrowedFd<'_>) -> Result<()> {
        self.run(Call::ExpectRandom, || Linux.expect_random(file))
    }

    fn is_cached(&self, file: BorrowedFd<'_>, offset: u64) -> Result<bool> {
        self.run(Call::IsCached, || Linux.is_cached(file, offset))
    }

    fn drop_cached(&self, file: BorrowedFd<'_>, offset: u64, len: usize) {
        Linux.drop_cached(file, offset, len);
    }

    fn sync(&self, file: BorrowedFd<'_>) -> Result<()> {
        let inode = rustix::fs::fstat(file)?.st_ino;
        let kept = file.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
        {
            let mut state = self.state.lock().unwrap();
            state.synced.push(inode);
            state.kept.push(kept);
        }
        self.run(Call::Sync, || Linux.sync(file))
    }

    fn stat(&self, file: BorrowedFd<'_>) -> Result<FileStat> {
        self.run(Call::Stat, || Linux.stat(file))
    }

    fn stat_at(&self, dir: BorrowedFd<'_>, path: &Path) -> Result<FileStat> {
        self.run(Call::StatAt, || Linux.stat_at(dir, path))
    }

    fn set_mode(&self, file: BorrowedFd<'_>, mode: Mode) -> Result<()> {
        self.run(Call::SetMode, || Linux.set_mode(file, mode))
    }

    fn link(&self, dir: BorrowedFd<'_>, from: &str, to: &str) -> Result<()> {
        match self.note(Call::Link) {
            Some(Act::Fail(errno)) => return Err(errno),
            Some(Act::DoThenFail(errno)) => return Linux.link(dir, from, to).and(Err(errno)),
            Some(Act::UnlinkSource) => Linux.unlink(dir, from)?,
            _ => {}
        }
        Linux.link(dir, from, to)
    }

    fn rename(&self, dir: BorrowedFd<'_>, from: &str, to: &str, taken: Taken) -> Result<()> {
        self.run(Call::Rename, || Linux.rename(dir, from, to, taken))
    }

    fn unlink(&self, dir: BorrowedFd<'_>, path: &str) -> Result<()> {
        self.run(Call::Unlink, || Linux.unlink(dir, path))
    }

    fn make_dir(&self, dir: BorrowedFd<'_>, path: &Path, mode: Mode) -> Result<()> {
        self.run(Call::MakeDir, || Linux.make_dir(dir, path, mode))
    }

    fn names(&self, dir: BorrowedFd<'_>, path: &str) -> Result<Vec<String>> {
        self.run(Call::Names, || Linux.names(dir, path))
    }

    fn allocate(&self, file: BorrowedFd<'_>, len: u64) -> Result<()> {
        self.run(Call::Allocate, || Linux.allocate(file, len))
    }

    fn free_bytes(&self, dir: BorrowedFd<'_>) -> Result<u64> {
        match self.note(Call::FreeBytes) {
            Some(Act::Free(bytes)) => Ok(bytes),
            _ => Linux.free_bytes(dir),
        }
    }

    fn is_local(&self, dir: BorrowedFd<'_>) -> Result<bool> {
        match self.note(Call::IsLocal) {
            Some(Act::Shared) => Ok(false),
            _ => Linux.is_local(dir),
        }
    }

    fn boot_id(&self) -> Result<Vec<u8>> {
        Linux.boot_id()
    }

    fn lock(&self, file: BorrowedFd<'_>, mode: LockMode) -> Result<bool> {
        self.run(Call::Lock, || Linux.lock(file, mode))
    }
}
