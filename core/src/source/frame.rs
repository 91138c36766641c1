//! One directory on the walk's stack: its names, what is left out of it, and what it takes to come
//! back to it. How the stack moves is `walk`'s.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    sync::Arc,
};

use rustix::fs::CWD;

use super::{
    dir::{self, ListFailure, MAX_NAME_BYTES, MarkerState, NameList, TooWide},
    filter::{Filter, FilterProgress},
    meta::{Stat, source_error},
    sqlite::is_name_of_copy,
    targets::{NodeIndex, Root, Targets},
};
use crate::{
    error::{Error, SourceAction},
    node::DeviceNumber,
};

/// A directory whose entries are being walked.
#[derive(Debug)]
pub(super) struct Frame {
    /// Closed while the walk is far below.
    pub(super) dir: Option<Arc<OwnedFd>>,
    /// Device and inode, to know the directory again.
    identity: Option<(DeviceNumber, u64)>,
    pub(super) names: NameList,
    /// At or below a target: all entries count, not only those that lead to one.
    pub(super) listed: bool,
    /// Reached through a symbolic link.
    pub(super) followed: bool,
    /// Its place among the targets, if it leads to some.
    pub(super) node: Option<NodeIndex>,
    /// The only device whose files count, if only one does.
    pub(super) only_device: Option<DeviceNumber>,
    pub(super) progress: FilterProgress,
    /// Names of marker files in this directory: nothing else counts.
    pub(super) markers: Vec<Vec<u8>>,
    /// Length of its path in the snapshot.
    pub(super) archive_len: usize,
    /// Length of its path in the source.
    pub(super) source_len: usize,
    /// The root from which it is reached.
    pub(super) root: usize,
}

impl Frame {
    /// A directory without names yet.
    pub(super) fn new(root: usize, progress: FilterProgress) -> Self {
        Self {
            dir: None,
            identity: None,
            names: NameList::default(),
            listed: false,
            followed: false,
            node: None,
            only_device: None,
            progress,
            markers: Vec::new(),
            archive_len: 0,
            source_len: 0,
            root,
        }
    }

    /// Opens the directory that some targets are reached from; one that cannot be opened stays
    /// without a descriptor and gives no entries.
    pub(super) fn open_root(
        number: usize,
        targets: &Targets,
        filter: &Filter,
        list_buffer: &mut Vec<u8>,
        problems: &mut VecDeque<Error>,
    ) -> Self {
        let mut frame = Self::new(number, filter.start());
        let Some(root) = targets.roots.get(number) else {
            return frame;
        };
        for name in root
            .absolute
            .split(|&b| b == b'/')
            .filter(|name| !name.is_empty())
        {
            let from = frame.progress.clone();
            filter.step_into(&from, name, &mut frame.progress);
        }
        frame.source_len = root.absolute.len();
        frame.listed = root.spread;
        frame.followed = true;
        frame.node = Some(root.node);
        let shown = if root.absolute.is_empty() {
            b"/"
        } else {
            root.absolute.as_slice()
        };
        let opened = open_path(root).and_then(|fd| Stat::of(fd.as_fd()).map(|stat| (fd, stat)));
        let (fd, stat) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                problems.push_back(source_error(SourceAction::Open, shown, error));
                return frame;
            }
        };
        if root.spread && filter.one_file_system {
            frame.only_device = Some(stat.device);
        }
        match frame.fill(Arc::new(fd), &stat, shown, targets, filter, list_buffer) {
            Ok(warnings) => problems.extend(warnings),
            Err(error) => problems.push_back(error),
        }
        frame
    }

    /// Takes the open directory, finds its names and the markers in it; returns what to warn of.
    pub(super) fn fill(
        &mut self,
        fd: Arc<OwnedFd>,
        stat: &Stat,
        path: &[u8],
        targets: &Targets,
        filter: &Filter,
        list_buffer: &mut Vec<u8>,
    ) -> Result<Vec<Error>, Error> {
        if self.listed {
            let listed = dir::list(fd.as_fd(), list_buffer, &mut self.names);
            listed.map_err(|failure| match failure {
                ListFailure::Io(error) => source_error(SourceAction::List, path, error),
                ListFailure::TooWide => too_wide(path),
            })?;
        }
        for name in self
            .node
            .into_iter()
            .flat_map(|node| targets.names_below(node))
        {
            self.names.push(name).map_err(|TooWide| too_wide(path))?;
        }
        self.names.sort();
        let warnings = if self.listed {
            self.find_markers(&fd, path, filter)
        } else {
            Vec::new()
        };
        self.identity = Some((stat.device, stat.inode));
        self.dir = Some(fd);
        Ok(warnings)
    }

    /// True if `fd` is this directory.
    pub(super) fn is_at(&self, fd: &OwnedFd) -> bool {
        Stat::of(fd.as_fd()).is_ok_and(|stat| self.identity == Some((stat.device, stat.inode)))
    }

    /// Whether a folder of this name in it would be one in which a backup makes a copy of a
    /// database.
    pub(super) fn may_hold_copy(&self, name: &[u8], targets: &Targets) -> bool {
        targets.scratch.is_some() && self.identity == targets.scratch && is_name_of_copy(name)
    }

    fn find_markers(&mut self, fd: &OwnedFd, path: &[u8], filter: &Filter) -> Vec<Error> {
        let mut warnings = Vec::new();
        for marker in filter
            .markers
            .iter()
            .filter(|marker| self.names.contains(&marker.name))
        {
            let marker_path =
                || [path.strip_suffix(b"/").unwrap_or(path), b"/", &marker.name].concat();
            match dir::look_at_marker(fd.as_fd(), marker) {
                Ok(MarkerState::Absent) => {}
                Ok(MarkerState::Excludes) => self.markers.push(marker.name.clone()),
                Ok(MarkerState::Mismatch) => warnings.push(Error::MarkerMismatch {
                    path: marker_path(),
                }),
                Err(error) => {
                    warnings.push(source_error(SourceAction::Read, &marker_path(), error));
                }
            }
        }
        warnings
    }
}

pub(super) fn too_wide(path: &[u8]) -> Error {
    Error::SourceTooWide {
        path: path.to_vec(),
        limit: MAX_NAME_BYTES,
    }
}

fn open_path(root: &Root) -> io::Result<OwnedFd> {
    let path = root.path.as_os_str().as_bytes();
    if root.spread {
        dir::open_dir(CWD, path, true)
    } else {
        dir::open_passage(CWD, path, true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::source::filter::FilterRules;

    #[test]
    fn a_directory_with_more_names_than_are_held_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a-long-name", "another-one", "one-more"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let targets = Targets::resolve(dir.path(), &["."]);
        let filter = Filter::compile(&FilterRules::default()).unwrap();
        let fd = dir::open_dir(CWD, dir.path().as_os_str().as_bytes(), true).unwrap();
        let stat = Stat::of(fd.as_fd()).unwrap();
        let mut frame = Frame::new(0, filter.start());
        frame.listed = true;
        frame.names.limit = 20;
        let filled = frame.fill(
            Arc::new(fd),
            &stat,
            b"/wide",
            &targets,
            &filter,
            &mut Vec::new(),
        );
        assert!(
            matches!(&filled, Err(Error::SourceTooWide { path, .. }) if path == b"/wide"),
            "{filled:?}"
        );
    }
}
