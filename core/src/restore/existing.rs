//! What is there already where something is to be restored, and what is done about it.
//! A dry run looks at the same things and changes nothing.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::fs::MetadataExt, sync::Arc};

use rustix::{
    fs::{FileType, Stat},
    io::Errno,
};
use strongroom_repo::env::Timestamp;

use super::{Overwrite, Run, add, pending::PendingDir};
use crate::{
    error::{Error, RestoreAction, Result},
    format::tree::TreeEntry,
    node::{Metadata, NodeKind},
    observer::Action,
    source::sqlite,
};

/// What there is already under a name.
#[derive(Clone, Copy)]
struct Existing {
    kind: FileType,
    size: u64,
    mtime: Timestamp,
}

/// What is done about an entry that is no directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written.
    Write {
        /// Over something.
        existed: bool,
    },
    /// The content there is right; the metadata may not be.
    Update,
    /// What is there stays.
    Leave,
}

/// What becomes of an entry that is no directory.
pub(super) fn judge(
    run: &Run<'_>,
    dir: &PendingDir,
    entry: &TreeEntry,
    path: &[u8],
) -> Result<Verdict> {
    let there = existing(run, dir, &entry.node.name, path)?;
    let stays = there.is_some() && run.options.overwrite == Overwrite::Never;
    if entry.node.meta.copied.is_some() && !stays {
        see_that_no_log_is_there(run, dir, &entry.node.name, path)?;
    }
    let Some(there) = there else {
        return Ok(Verdict::Write { existed: false });
    };
    // The time of a database does not move with what is in its log.
    let copied = entry.node.meta.copied.as_ref();
    let log = copied.and_then(|copied| copied.wal).map(|wal| wal.mtime);
    let mtime = entry.node.meta.mtime;
    let newest = log.map_or(mtime, |log| log.max(mtime));
    let is_same = copied.is_none()
        && there.kind == FileType::RegularFile
        && entry.node.kind == (NodeKind::File { size: there.size })
        && there.mtime == mtime;
    Ok(match run.options.overwrite {
        Overwrite::IfChanged if is_same => Verdict::Update,
        Overwrite::IfNewer if there.mtime >= newest => Verdict::Leave,
        Overwrite::Never => Verdict::Leave,
        _ => Verdict::Write { existed: true },
    })
}

/// The copy of a database holds what was in its log. Another log beside it would be applied to it.
fn see_that_no_log_is_there(
    run: &Run<'_>,
    dir: &PendingDir,
    name: &[u8],
    path: &[u8],
) -> Result<()> {
    for suffix in [sqlite::WAL, sqlite::JOURNAL] {
        let log = [path, suffix].concat();
        let there = existing(run, dir, &[name, suffix].concat(), &log)?;
        if there.is_some_and(|there| there.kind == FileType::RegularFile && there.size > 0) {
            let path = run.options.target.join(OsStr::from_bytes(&log));
            return Err(Error::ForeignLog { path });
        }
    }
    Ok(())
}

/// Gives the file that is there the metadata of `entry`.
pub(super) fn update(run: &Run<'_>, dir: &PendingDir, entry: &TreeEntry, path: &[u8]) {
    let Some(dir) = dir.dir() else {
        return;
    };
    match dir.update_file(&entry.node.name, &entry.node.meta) {
        Ok(problems) => {
            for problem in problems {
                run.report(&Error::Metadata(problem));
            }
        }
        Err(error) => run.report_file(path, error),
    }
}

/// Makes a directory, or joins the one that is there. Nothing where that failed, which is told.
pub(super) fn make_dir(
    run: &Run<'_>,
    parent: &Arc<PendingDir>,
    name: &[u8],
    meta: &Metadata,
    path: &[u8],
) -> Option<Arc<PendingDir>> {
    let made = existing(run, parent, name, path).and_then(|there| {
        let in_the_way = there.filter(|there| {
            there.kind != FileType::Directory
                && match run.options.overwrite {
                    Overwrite::Always | Overwrite::IfChanged => false,
                    Overwrite::IfNewer => there.mtime >= meta.mtime,
                    Overwrite::Never => true,
                }
        });
        if in_the_way.is_some() {
            return Err(Error::Restore {
                action: RestoreAction::Create,
                path: run.options.target.join(OsStr::from_bytes(path)),
                source: Errno::EXIST.into(),
            });
        }
        let dir = parent.dir().map(|dir| dir.create_dir(name)).transpose()?;
        Ok((dir, there.is_some()))
    });
    match made {
        Ok((dir, existed)) => {
            add(&run.counts.dirs, 1);
            let action = if existed {
                Action::Changed
            } else {
                Action::New
            };
            run.done(path, action, 0, true);
            Some(PendingDir::below(parent, dir, meta.clone()))
        }
        Err(error) => {
            run.report_file(path, error);
            None
        }
    }
}

fn existing(run: &Run<'_>, dir: &PendingDir, name: &[u8], path: &[u8]) -> Result<Option<Existing>> {
    match dir.dir() {
        // Nothing was in it when it was made.
        Some(dir) if dir.is_fresh() => Ok(None),
        Some(dir) => Ok(dir.existing(name)?.map(|stat| Existing::of_stat(&stat))),
        None => {
            let there = run.options.target.join(OsStr::from_bytes(path));
            Ok(there.symlink_metadata().ok().map(|stat| Existing {
                kind: FileType::from_raw_mode(stat.mode()),
                size: stat.size(),
                mtime: Timestamp {
                    secs: stat.mtime(),
                    nanos: u32::try_from(stat.mtime_nsec()).unwrap_or(0),
                },
            }))
        }
    }
}

impl Existing {
    fn of_stat(stat: &Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: Timestamp {
                secs: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
        }
    }
}
