//! The walk over the targets of a backup: one ordered stream of [`Event`]s, pulled by the caller.
//!
//! Entries come in the order in which a tree stores them: by name within a directory, a directory's
//! entries between its `Enter` and its `Leave`. One system call per entry; more only for
//! directories. The walk keeps a stack instead of calling itself, and at most [`MAX_OPEN_DIRS`]
//! directories of it open: beyond that it climbs back by `..` and makes sure that it arrived where
//! it came from. What cannot be read is an event with its path, and the walk goes on.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use rustix::io::Errno;

pub use super::entry::Entry;
use super::{
    device::SourceDevice,
    dir::{self, NameList, TooWide},
    filter::{Filter, FilterProgress},
    frame::{Frame, too_wide},
    meta::{FileType, Stat, source_error},
    sqlite::is_folder_of_copy,
    targets::{Claim, Targets},
};
use crate::{
    error::{Error, SourceAction},
    node::DeviceNumber,
};

/// Most directories above the current one that stay open.
pub const MAX_OPEN_DIRS: usize = 64;
/// Most levels of directories in a snapshot.
pub const MAX_DEPTH: usize = 65_536;

/// What the walk found next.
#[derive(Debug)]
pub enum Event {
    /// A directory; its entries follow, up to its `Leave`.
    Enter(Entry),
    /// Anything else.
    Entry(Entry),
    /// The end of the directory entered last and not yet left.
    Leave,
    /// Something that is not saved, or not wholly; see [`Error::is_warning`].
    Problem(Error),
}

/// The walk; see the module.
#[derive(Debug)]
pub struct Walk {
    filter: Filter,
    targets: Targets,
    /// Where the targets are reached from; always open.
    roots: Vec<Frame>,
    top: Top,
    /// The directories entered and not yet left.
    frames: Vec<Frame>,
    problems: VecDeque<Error>,
    devices: Vec<DeviceNumber>,
    excluded: u64,
    max_depth: usize,
    archive_path: Vec<u8>,
    source_path: Vec<u8>,
    progress: FilterProgress,
    list_buffer: Vec<u8>,
}

/// The root of the snapshot: a directory that exists nowhere.
#[derive(Debug, Default)]
struct Top {
    names: NameList,
    /// From which root each name comes, in the order of the names; empty if there is one root.
    roots: VecDeque<usize>,
    /// What renamed entries are called in the source.
    real_names: HashMap<Vec<u8>, Vec<u8>>,
}

/// The directory whose entry is being looked at.
#[derive(Clone, Copy)]
enum Place {
    Root(usize),
    Deepest,
}

impl Walk {
    /// Prepares a walk over `targets`. What is missing or cannot be opened comes as the first
    /// events.
    #[must_use]
    pub fn new(mut targets: Targets, filter: Filter) -> Self {
        let mut problems: VecDeque<Error> = std::mem::take(&mut targets.missing).into();
        let mut list_buffer = Vec::new();
        let roots = (0..targets.roots.len())
            .map(|root| Frame::open_root(root, &targets, &filter, &mut list_buffer, &mut problems))
            .collect::<Vec<_>>();
        let mut walk = Self {
            filter,
            targets,
            roots,
            top: Top::default(),
            frames: Vec::new(),
            problems,
            devices: Vec::new(),
            excluded: 0,
            max_depth: MAX_DEPTH,
            archive_path: Vec::new(),
            source_path: Vec::new(),
            progress: FilterProgress::default(),
            list_buffer,
        };
        walk.top = walk.gather_top().unwrap_or_else(|TooWide| {
            walk.problems.push_back(too_wide(b"/"));
            Top::default()
        });
        walk
    }

    /// Where the entry of the last event stands in the snapshot, by `/` and without a leading one;
    /// after `Leave`, the directory left.
    #[must_use]
    pub fn archive_path(&self) -> &[u8] {
        self.archive_path
            .strip_prefix(b"/")
            .unwrap_or(&self.archive_path)
    }

    /// The absolute path of the entry of the last event in the source.
    #[must_use]
    pub fn source_path(&self) -> &[u8] {
        &self.source_path
    }

    /// Whether the directory of the last event's entry may hold a file of this name: where its
    /// names were listed, whether one of them is that.
    #[must_use]
    pub(crate) fn may_hold(&self, name: &[u8]) -> bool {
        match self.frames.last() {
            Some(frame) if frame.listed => frame.names.contains(name),
            _ => true,
        }
    }

    /// How many entries were left out by the filter so far; a directory counts as one.
    #[must_use]
    pub fn excluded(&self) -> u64 {
        self.excluded
    }

    fn gather_top(&self) -> Result<Top, TooWide> {
        let mut top = Top::default();
        let one_root = self.roots.len() < 2;
        let mut owners: HashMap<Vec<u8>, usize> = HashMap::new();
        for claim in &self.targets.claims {
            let (root, names): (usize, Box<dyn Iterator<Item = &[u8]>>) = match claim {
                Claim::Name(root, name) => (*root, Box::new(std::iter::once(name.as_slice()))),
                Claim::Spread(root) => match self.roots.get(*root) {
                    Some(frame) => (*root, Box::new(frame.names.iter())),
                    None => continue,
                },
            };
            if self.roots.get(root).is_none_or(|frame| frame.dir.is_none()) {
                continue;
            }
            for name in names {
                if one_root {
                    top.names.push(name)?;
                } else {
                    top.claim(root, name, &mut owners)?;
                }
            }
        }
        top.names.sort();
        top.roots = top
            .names
            .iter()
            .filter_map(|name| owners.get(name).copied())
            .collect();
        Ok(top)
    }

    /// Looks at one entry of a directory; none if it is left out or a problem was noted.
    fn visit(&mut self, place: Place, stored: Vec<u8>, real: Option<Vec<u8>>) -> Option<Event> {
        let name = real.as_deref().unwrap_or(&stored);
        let (parent, root) = match place {
            Place::Root(root) => {
                self.source_path.clear();
                self.source_path
                    .extend_from_slice(&self.targets.roots.get(root)?.absolute);
                (self.roots.get(root)?, root)
            }
            Place::Deepest => {
                let parent = self.frames.last()?;
                (parent, parent.root)
            }
        };
        extend_path(&mut self.archive_path, parent.archive_len, &stored);
        extend_path(&mut self.source_path, parent.source_len, name);
        let node = parent.node.and_then(|node| self.targets.child(node, name));
        self.filter
            .step_into(&parent.progress, name, &mut self.progress);
        let hidden = || parent.markers.iter().any(|marker| marker != name);
        if node.is_none() && (self.filter.excludes(&self.progress) || hidden()) {
            self.excluded += 1;
            return None;
        }
        let is_copy = node.is_none() && parent.may_hold_copy(name, &self.targets);
        let is_target = node.is_some_and(|node| self.targets.is_target(node));
        let followed = node.is_some_and(|node| self.targets.leads_on(node));
        let (dir, listed) = (Arc::clone(parent.dir.as_ref()?), parent.listed || is_target);
        let mut only_device = parent.only_device;
        let stat = match Stat::at(dir.as_fd(), name, followed) {
            Ok(stat) if is_copy && is_folder_of_copy(&stat) => return None,
            Ok(stat) => stat,
            Err(_) if is_copy => return None,
            Err(error) => {
                self.problems
                    .push_back(self.lost(SourceAction::Stat, error));
                return None;
            }
        };
        if is_target && self.filter.one_file_system {
            only_device = Some(stat.device);
        }
        let is_elsewhere = only_device.is_some_and(|device| device != stat.device);
        let is_dir = stat.file_type == FileType::Dir;
        let is_large = stat.file_type == FileType::Regular && self.filter.is_too_large(stat.size);
        if !is_target && !is_dir && (is_large || is_elsewhere) {
            self.excluded += 1;
            return None;
        }
        let entry = Entry {
            name: stored,
            device_ordinal: self.ordinal(stat.device),
            stat,
            dir,
            opened: None,
            passage: false,
            followed,
            device: None,
            real_name: real.map(Vec::into_boxed_slice),
        };
        if !is_dir {
            let reads_device = is_target && self.targets.reads_devices;
            return self.not_dir(entry, reads_device);
        }
        let mut frame = Frame::new(root, self.progress.clone());
        frame.listed = listed;
        frame.followed = followed;
        frame.node = node;
        frame.only_device = only_device;
        self.enter(frame, entry, is_elsewhere)
    }

    /// An entry that is no directory; a block device is opened where its content is to be read.
    fn not_dir(&mut self, mut entry: Entry, reads_device: bool) -> Option<Event> {
        if reads_device {
            match SourceDevice::open(&entry, &self.source_path) {
                Ok(Some((device, stat))) => {
                    self.problems.extend(device.mounted());
                    entry.stat = stat;
                    entry.device = Some(Arc::new(device));
                }
                Ok(None) => {}
                Err(error) => {
                    self.problems.push_back(error);
                    return None;
                }
            }
        }
        Some(Event::Entry(entry))
    }

    fn enter(&mut self, mut frame: Frame, mut entry: Entry, is_elsewhere: bool) -> Option<Event> {
        frame.archive_len = self.archive_path.len();
        frame.source_len = self.source_path.len();
        if !is_elsewhere && !self.open_frame(&mut frame, &mut entry) {
            return None;
        }
        self.frames.push(frame);
        self.close_far_above();
        Some(Event::Enter(entry))
    }

    /// Opens and lists the directory of an entry; false if it cannot be, with a problem noted.
    fn open_frame(&mut self, frame: &mut Frame, entry: &mut Entry) -> bool {
        if self.frames.len() >= self.max_depth {
            self.problems.push_back(Error::SourceTooDeep {
                path: self.source_path.clone(),
                limit: self.max_depth,
            });
            return false;
        }
        let opened = dir::open_dir(entry.dir.as_fd(), entry.source_name(), entry.followed);
        let opened = match opened {
            Err(error) if !frame.listed && error.kind() == io::ErrorKind::PermissionDenied => {
                entry.passage = true;
                dir::open_passage(entry.dir.as_fd(), entry.source_name(), entry.followed)
            }
            opened => opened,
        };
        let opened = opened.and_then(|fd| Stat::of(fd.as_fd()).map(|stat| (Arc::new(fd), stat)));
        let (fd, stat) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                self.problems
                    .push_back(self.lost(SourceAction::Open, error));
                return false;
            }
        };
        entry.stat = stat;
        entry.device_ordinal = self.ordinal(stat.device);
        entry.opened = Some(Arc::clone(&fd));
        // Opening may have mounted something.
        if frame
            .only_device
            .is_some_and(|device| device != stat.device)
        {
            return true;
        }
        let path = self.source_path.as_slice();
        match frame.fill(
            fd,
            &stat,
            path,
            &self.targets,
            &self.filter,
            &mut self.list_buffer,
        ) {
            Ok(warnings) => {
                self.problems.extend(warnings);
                true
            }
            Err(error) => {
                self.problems.push_back(error);
                false
            }
        }
    }

    fn leave(&mut self) -> Event {
        if let Some(left) = self.frames.pop() {
            self.archive_path.truncate(left.archive_len);
            self.source_path.truncate(left.source_len);
            if self
                .frames
                .last()
                .is_some_and(|parent| parent.dir.is_none())
            {
                self.reopen_deepest(&left);
            }
        }
        Event::Leave
    }

    fn close_far_above(&mut self) {
        let far = self.frames.len().checked_sub(MAX_OPEN_DIRS + 1);
        if let Some(frame) = far.and_then(|far| self.frames.get_mut(far)) {
            frame.dir = None;
        }
    }

    /// Opens the deepest directory again after its entry `left` was walked: by `..`, or from the
    /// root down if that leads elsewhere (the directory was moved, or entered through a link).
    fn reopen_deepest(&mut self, left: &Frame) {
        let Some(parent) = self.frames.last() else {
            return;
        };
        let climbed = left.dir.as_ref().and_then(|dir| {
            let fd = dir::open_dir(dir.as_fd(), b"..", false).ok()?;
            parent.is_at(&fd).then_some(fd)
        });
        let reopened = climbed.or_else(|| self.open_from_root());
        let path_len = parent.source_len;
        let Some(parent) = self.frames.last_mut() else {
            return;
        };
        match reopened {
            Some(fd) => parent.dir = Some(Arc::new(fd)),
            None if parent.names.is_finished() => {}
            None => {
                parent.names = NameList::default();
                let path = self
                    .source_path
                    .get(..path_len)
                    .unwrap_or_default()
                    .to_vec();
                self.problems.push_back(Error::SourceMoved { path });
            }
        }
    }

    fn open_from_root(&self) -> Option<OwnedFd> {
        let root = self.roots.get(self.frames.first()?.root)?;
        let mut above: Option<OwnedFd> = None;
        let mut begin = root.source_len;
        for frame in &self.frames {
            let name = self.source_path.get(begin + 1..frame.source_len)?;
            let dir = match &above {
                Some(fd) => fd.as_fd(),
                None => root.dir.as_ref()?.as_fd(),
            };
            let opened = dir::open_dir(dir, name, frame.followed)
                .or_else(|_| dir::open_passage(dir, name, frame.followed))
                .ok()
                .filter(|fd| frame.is_at(fd))?;
            above = Some(opened);
            begin = frame.source_len;
        }
        above
    }

    fn ordinal(&mut self, device: DeviceNumber) -> u32 {
        let known = self.devices.iter().position(|known| *known == device);
        let ordinal = known.unwrap_or_else(|| {
            self.devices.push(device);
            self.devices.len() - 1
        });
        u32::try_from(ordinal).unwrap_or(u32::MAX)
    }

    /// The entry that the walk stands at could not be looked at.
    fn lost(&self, action: SourceAction, error: io::Error) -> Error {
        match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Error::SourceVanished {
                path: self.source_path.clone(),
            },
            _ => source_error(action, &self.source_path, error),
        }
    }
}

impl Iterator for Walk {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(problem) = self.problems.pop_front() {
                return Some(Event::Problem(problem));
            }
            let event = match self.frames.last_mut() {
                Some(frame) => match frame.names.take_next().map(<[u8]>::to_vec) {
                    Some(name) => self.visit(Place::Deepest, name, None),
                    None => Some(self.leave()),
                },
                None => {
                    let name = self.top.names.take_next()?.to_vec();
                    let root = self.top.roots.pop_front().unwrap_or_default();
                    let real = self.top.real_names.remove(&name);
                    self.visit(Place::Root(root), name, real)
                }
            };
            if event.is_some() {
                return event;
            }
        }
    }
}

impl Top {
    fn real_name<'a>(&'a self, stored: &'a [u8]) -> &'a [u8] {
        self.real_names.get(stored).map_or(stored, Vec::as_slice)
    }

    /// Adds a name of one of several roots, under another name if another root has it already.
    fn claim(
        &mut self,
        root: usize,
        name: &[u8],
        owners: &mut HashMap<Vec<u8>, usize>,
    ) -> Result<(), TooWide> {
        let mut stored = name.to_vec();
        for suffix in 1_u32.. {
            match owners.get(&stored) {
                Some(owner) if *owner == root && self.real_name(&stored) == name => return Ok(()),
                Some(_) => {
                    stored = name.to_vec();
                    stored.extend_from_slice(format!("-{suffix}").as_bytes());
                }
                None => break,
            }
        }
        if stored != name {
            self.real_names.insert(stored.clone(), name.to_vec());
        }
        self.names.push(&stored)?;
        owners.insert(stored, root);
        Ok(())
    }
}

fn extend_path(path: &mut Vec<u8>, parent_len: usize, name: &[u8]) {
    path.truncate(parent_len);
    path.push(b'/');
    path.extend_from_slice(name);
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt, symlink},
        },
        path::{Path, PathBuf},
    };

    use rustix::fs::{AtFlags, Mode, OFlags, mkdirat, openat, unlinkat};

    use super::{
        super::{filter::FilterRules, sqlite::DatabaseOptions},
        *,
    };

    struct Tree {
        _dir: tempfile::TempDir,
        base: PathBuf,
    }

    /// Makes files (and directories, where the name ends in `/`) below a new base `in`.
    fn tree(names: &[&str]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap().join("in");
        fs::create_dir(&base).unwrap();
        let tree = Tree { _dir: dir, base };
        names.iter().for_each(|name| tree.add(name));
        tree
    }

    impl Tree {
        fn add(&self, name: &str) {
            let path = self.base.join(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
            } else {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, name).unwrap();
            }
        }

        fn walk(&self, targets: &[&str], rules: &FilterRules) -> Walk {
            let targets = Targets::resolve(&self.base, targets);
            Walk::new(targets, Filter::compile(rules).unwrap())
        }

        fn absolute(&self, name: &str) -> String {
            self.base.join(name).to_str().unwrap().to_owned()
        }
    }

    /// One line per event: `+path` enters, `path` is an entry, `-path` leaves, `!text` a problem.
    fn lines(mut walk: Walk) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(event) = walk.next() {
            let path = String::from_utf8_lossy(walk.archive_path()).into_owned();
            lines.push(match event {
                Event::Enter(_) => format!("+{path}"),
                Event::Entry(_) => path,
                Event::Leave => format!("-{path}"),
                Event::Problem(error) => format!("!{error}"),
            });
        }
        lines
    }

    fn rules(set: impl FnOnce(&mut FilterRules)) -> FilterRules {
        let mut rules = FilterRules::default();
        set(&mut rules);
        rules
    }

    fn excluding(patterns: &[&str]) -> FilterRules {
        rules(|rules| rules.exclude = patterns.iter().map(|p| p.as_bytes().to_vec()).collect())
    }

    const ALL: FilterRules = FilterRules {
        exclude: Vec::new(),
        iexclude: Vec::new(),
        exclude_if_present: Vec::new(),
        exclude_caches: false,
        exclude_larger_than: None,
        one_file_system: false,
    };

    #[test]
    fn entries_come_by_name_with_a_directorys_between_enter_and_leave() {
        let tree = tree(&["d/b", "d/a/x", "d/a-b", "d/empty/", "d/B"]);
        assert_eq!(
            lines(tree.walk(&["d"], &ALL)),
            [
                "+d", "d/B", "+d/a", "d/a/x", "-d/a", "d/a-b", "d/b", "+d/empty", "-d/empty", "-d"
            ]
        );
    }

    #[test]
    fn a_dot_stands_for_its_entries_at_the_root() {
        let tree = tree(&["a", "d/x"]);
        assert_eq!(lines(tree.walk(&["."], &ALL)), ["a", "+d", "d/x", "-d"]);
        assert_eq!(lines(tree.walk(&["d/.."], &ALL)), ["a", "+d", "d/x", "-d"]);
        assert_eq!(
            lines(tree.walk(&[".", "d"], &ALL)),
            ["a", "+d", "d/x", "-d"]
        );
    }

    #[test]
    fn the_way_to_an_absolute_target_is_saved_without_its_neighbours() {
        let tree = tree(&["a/b/x", "a/b/y", "a/z", "w"]);
        let walk = tree.walk(&[&tree.absolute("a/b")], &ALL);
        let found = lines(walk);
        let base = tree.absolute("")[1..].trim_end_matches('/').to_owned();
        let inside: Vec<_> = found
            .iter()
            .filter(|line| line.contains(&base))
            .cloned()
            .collect();
        let expected = ["+", "+/a", "+/a/b", "/a/b/x", "/a/b/y", "-/a/b", "-/a", "-"].map(|line| {
            match line.strip_prefix(['+', '-']) {
                Some(rest) => format!("{}{base}{rest}", &line[..1]),
                None => format!("{base}{line}"),
            }
        });
        assert_eq!(inside, expected);
        let levels = base.split('/').count();
        assert_eq!(found.len(), expected.len() + 2 * (levels - 1));
    }

    #[test]
    fn copies_of_databases_are_left_out_where_they_are_made_and_nothing_else() {
        let tree = tree(&[
            "scratch/strongroom-12-3/copy",
            "scratch/strongroom-2024-01/",
            "scratch/strongroom-4-5",
            "scratch/strongroom-6/x",
            "scratch/x/strongroom-7-8/",
        ]);
        let private = fs::Permissions::from_mode(0o700);
        let copy = tree.base.join("scratch/strongroom-12-3");
        fs::set_permissions(copy, private).unwrap();
        let databases = DatabaseOptions {
            all: true,
            scratch: tree.base.join("scratch"),
            ..DatabaseOptions::default()
        };
        let found = |target: &str, databases: &DatabaseOptions| {
            let targets = Targets::resolve(&tree.base, &[target]).without_copies(databases);
            lines(Walk::new(targets, Filter::compile(&ALL).unwrap()))
        };
        let rest = [
            "+scratch/strongroom-2024-01",
            "-scratch/strongroom-2024-01",
            "scratch/strongroom-4-5",
            "+scratch/strongroom-6",
            "scratch/strongroom-6/x",
            "-scratch/strongroom-6",
            "+scratch/x",
            "+scratch/x/strongroom-7-8",
            "-scratch/x/strongroom-7-8",
            "-scratch/x",
            "-scratch",
        ];
        let kept = [&["+scratch"], &rest[..]].concat();
        assert_eq!(found("scratch", &databases), kept);
        let copy = [
            "+scratch/strongroom-12-3",
            "scratch/strongroom-12-3/copy",
            "-scratch/strongroom-12-3",
        ];
        let all = [&["+scratch"], &copy[..], &rest[..]].concat();
        assert_eq!(found("scratch", &DatabaseOptions::default()), all);
        let named = [&["+scratch"], &copy[..], &["-scratch"]].concat();
        assert_eq!(found("scratch/strongroom-12-3", &databases), named);
        // It may be gone before it is looked at.
        let targets = Targets::resolve(&tree.base, &["scratch"]).without_copies(&databases);
        let mut walk = Walk::new(targets, Filter::compile(&ALL).unwrap());
        assert!(matches!(walk.next(), Some(Event::Enter(_))));
        fs::remove_dir_all(tree.base.join("scratch/strongroom-12-3")).unwrap();
        assert_eq!(lines(walk), rest);
    }

    #[test]
    fn steps_up_are_left_out_of_the_path() {
        let tree = tree(&["../beside/c/x", "../beside/y"]);
        assert_eq!(
            lines(tree.walk(&["../beside/c"], &ALL)),
            ["+beside", "+beside/c", "beside/c/x", "-beside/c", "-beside"]
        );
    }

    #[test]
    fn equal_names_of_different_origin_are_told_apart() {
        let tree = tree(&["a/x", "../a/y", "../a-1"]);
        assert_eq!(
            lines(tree.walk(&["a", "../a", "../a-1"], &ALL)),
            ["+a", "a/x", "-a", "+a-1", "a-1/y", "-a-1", "a-1-1"]
        );
        let mut walk = tree.walk(&["a", "../a"], &ALL);
        let renamed = walk
            .find(|e| matches!(e, Event::Enter(e) if e.name == b"a-1"))
            .unwrap();
        assert!(matches!(renamed, Event::Enter(entry) if entry.source_name() == b"a"));
        assert_eq!(
            walk.source_path(),
            tree.base.parent().unwrap().join("a").as_os_str().as_bytes()
        );
    }

    #[test]
    fn overlapping_targets_are_saved_once() {
        let tree = tree(&["d/a/x", "d/b", "d/c"]);
        let whole = ["+d", "+d/a", "d/a/x", "-d/a", "d/b", "d/c", "-d"];
        for targets in [
            &["d", "d/a"][..],
            &["d/a/x", "d/a", "d"],
            &["d", "d/"],
            &["d/b", "d"],
        ] {
            assert_eq!(lines(tree.walk(targets, &ALL)), whole, "{targets:?}");
        }
        assert_eq!(
            lines(tree.walk(&["d/c", "d/a"], &ALL)),
            ["+d", "+d/a", "d/a/x", "-d/a", "d/c", "-d"]
        );
    }

    #[test]
    fn missing_targets_come_first_and_the_rest_is_walked() {
        let tree = tree(&["a"]);
        assert_eq!(
            lines(tree.walk(&["gone", "a"], &ALL)),
            ["!gone does not exist", "a"]
        );
    }

    #[test]
    fn a_link_as_target_is_a_link_but_one_on_the_way_is_followed() {
        let tree = tree(&["real/x", "real/y"]);
        symlink("real", tree.base.join("link")).unwrap();
        assert_eq!(lines(tree.walk(&["link"], &ALL)), ["link"]);
        assert_eq!(
            lines(tree.walk(&["link/x"], &ALL)),
            ["+link", "link/x", "-link"]
        );
        let mut walk = tree.walk(&["link/x"], &ALL);
        let Some(Event::Enter(entry)) = walk.next() else {
            panic!("a directory is expected");
        };
        assert_eq!(
            entry.stat.inode,
            fs::metadata(tree.base.join("real")).unwrap().ino()
        );
    }

    #[test]
    fn patterns_see_absolute_paths_and_are_asked_before_descending() {
        let tree = tree(&["d/keep/x.o", "d/keep/x.c", "d/skip/deep/y", "d/z"]);
        let rules = excluding(&["*.o", &tree.absolute("d/skip")]);
        let mut walk = tree.walk(&["."], &rules);
        let events = walk.by_ref().count();
        assert_eq!(events, 6);
        assert_eq!(walk.excluded(), 2);
        assert_eq!(
            lines(tree.walk(&["d"], &rules)),
            ["+d", "+d/keep", "d/keep/x.c", "-d/keep", "d/z", "-d"]
        );
    }

    #[test]
    fn a_target_is_never_left_out_itself_but_its_contents_may_be() {
        let tree = tree(&["d/a.o", "d/b.o", "d/c"]);
        let no_objects = excluding(&["*.o"]);
        assert_eq!(
            lines(tree.walk(&["d", "d/a.o"], &no_objects)),
            ["+d", "d/a.o", "d/c", "-d"]
        );
        assert_eq!(lines(tree.walk(&["d"], &excluding(&["d"]))), ["+d", "-d"]);
        let small = rules(|rules| rules.exclude_larger_than = Some(0));
        assert_eq!(lines(tree.walk(&["d/c"], &small)), ["+d", "d/c", "-d"]);
    }

    #[test]
    fn a_marked_directory_keeps_only_its_marker() {
        let tree = tree(&["d/.nobackup", "d/x", "d/s/y", "e/x", "f/.nobackup/x", "f/y"]);
        let rules = rules(|rules| rules.exclude_if_present = vec![b".nobackup".to_vec()]);
        assert_eq!(
            lines(tree.walk(&["."], &rules)),
            [
                "+d",
                "d/.nobackup",
                "-d",
                "+e",
                "e/x",
                "-e",
                "+f",
                "+f/.nobackup",
                "f/.nobackup/x",
                "-f/.nobackup",
                "-f"
            ]
        );
    }

    #[test]
    fn a_cache_counts_only_with_the_standard_signature() {
        let tree = tree(&["real/x", "fake/CACHEDIR.TAG", "fake/x"]);
        let signature = "Signature: 8a477f597d28d172789f06886806bc55\n# more";
        fs::write(tree.base.join("real/CACHEDIR.TAG"), signature).unwrap();
        let rules = rules(|rules| rules.exclude_caches = true);
        let tag = tree.absolute("fake/CACHEDIR.TAG").into_bytes();
        let told = tree.walk(&["."], &rules).any(
            |event| matches!(event, Event::Problem(Error::MarkerMismatch { path }) if path == tag),
        );
        assert!(told);
        let found = lines(tree.walk(&["."], &rules));
        assert!(
            found[1].contains("fake/CACHEDIR.TAG does not start"),
            "{found:?}"
        );
        assert_eq!(
            found[2..],
            [
                "fake/CACHEDIR.TAG",
                "fake/x",
                "-fake",
                "+real",
                "real/CACHEDIR.TAG",
                "-real"
            ]
        );
    }

    #[test]
    fn large_files_are_left_out() {
        let tree = tree(&["d/big", "d/dir-of-a-long-name/"]);
        fs::write(tree.base.join("d/small"), b"12").unwrap();
        let rules = rules(|rules| rules.exclude_larger_than = Some(2));
        assert_eq!(
            lines(tree.walk(&["d"], &rules)),
            [
                "+d",
                "+d/dir-of-a-long-name",
                "-d/dir-of-a-long-name",
                "d/small",
                "-d"
            ]
        );
    }

    #[test]
    fn staying_on_one_file_system_keeps_mount_points_as_empty_directories() {
        let rules = rules(|rules| rules.one_file_system = true);
        let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
        let targets = Targets::resolve(Path::new("/"), &["/dev"]);
        let mut walk = Walk::new(targets, Filter::compile(&rules).unwrap());
        let home = device(Path::new("/dev")).unwrap();
        let mut expect_leave = false;
        let mut mount_points = 0;
        while let Some(event) = walk.next() {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(walk.source_path()));
            assert!(!expect_leave || matches!(event, Event::Leave), "{path:?}");
            expect_leave = false;
            match event {
                Event::Enter(_) if device(&path).is_some_and(|device| device != home) => {
                    mount_points += 1;
                    expect_leave = true;
                }
                Event::Entry(_) => assert!(device(&path).is_none_or(|device| device == home)),
                _ => {}
            }
        }
        let mounted = |name: &str| device(Path::new(name)).is_some_and(|device| device != home);
        let expected = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/hugepages"];
        assert!(mount_points >= expected.iter().filter(|name| mounted(name)).count());
    }

    #[test]
    fn an_entry_that_vanishes_is_reported_and_the_walk_goes_on() {
        let tree = tree(&["d/a", "d/b", "d/c/x", "d/d"]);
        let mut walk = tree.walk(&["d"], &ALL);
        assert!(matches!(walk.next(), Some(Event::Enter(_))));
        fs::remove_file(tree.base.join("d/a")).unwrap();
        fs::remove_dir_all(tree.base.join("d/c")).unwrap();
        let gone = |name| format!("!{} vanished during the backup", tree.absolute(name));
        assert_eq!(
            lines(walk),
            [
                gone("d/a"),
                "d/b".into(),
                gone("d/c"),
                "d/d".into(),
                "-d".into()
            ]
        );
    }

    #[test]
    fn a_directory_swapped_for_a_link_is_not_followed() {
        let tree = tree(&["d/a", "d/sub/x", "secret/y"]);
        let mut walk = tree.walk(&["d"], &ALL);
        assert!(matches!(walk.next(), Some(Event::Enter(_))));
        fs::remove_dir_all(tree.base.join("d/sub")).unwrap();
        symlink("../secret", tree.base.join("d/sub")).unwrap();
        assert_eq!(lines(walk), ["d/a", "d/sub", "-d"]);
    }

    #[test]
    fn an_unreadable_directory_is_reported_unless_root_reads_it_anyway() {
        let tree = tree(&["d/locked/x", "d/y"]);
        let locked = tree.base.join("d/locked");
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        let found = lines(tree.walk(&["d"], &ALL));
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(
                found,
                ["+d", "+d/locked", "d/locked/x", "-d/locked", "d/y", "-d"]
            );
        } else {
            let refused = format!("!cannot open {}", tree.absolute("d/locked"));
            assert_eq!(
                found,
                ["+d".to_owned(), refused, "d/y".to_owned(), "-d".to_owned()]
            );
        }
    }

    #[test]
    fn a_directory_that_may_only_be_passed_still_leads_to_a_target() {
        use std::os::unix::fs::PermissionsExt;
        let tree = tree(&["d/a/x", "d/y"]);
        let passage = tree.base.join("d");
        fs::set_permissions(&passage, fs::Permissions::from_mode(0o111)).unwrap();
        let reader = super::super::MetadataReader::new(super::super::Accounts::default(), false);
        let mut problems = Vec::new();
        for event in tree.walk(&["d/a"], &ALL) {
            if let Event::Enter(entry) | Event::Entry(entry) = event {
                reader.node(&entry, b"", &mut problems).unwrap();
            }
        }
        let found = lines(tree.walk(&["d/a"], &ALL));
        fs::set_permissions(&passage, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(found, ["+d", "+d/a", "d/a/x", "-d/a", "-d"]);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn names_of_one_file_share_a_link_id() {
        let tree = tree(&["d/a", "d/c"]);
        fs::hard_link(tree.base.join("d/a"), tree.base.join("d/b")).unwrap();
        let links: Vec<_> = tree
            .walk(&["d"], &ALL)
            .filter_map(|event| match event {
                Event::Entry(entry) => Some(entry.link()),
                _ => None,
            })
            .collect();
        assert!(links[0].is_some_and(|link| link.device == 0));
        assert_eq!(links[0], links[1]);
        assert_eq!(links[2], None);
    }

    #[test]
    fn names_that_are_no_text_are_walked() {
        let tree = tree(&["d/"]);
        let name = std::ffi::OsStr::from_bytes(b"\xff\n\xfe");
        File::create(tree.base.join("d").join(name)).unwrap();
        let mut walk = tree.walk(&["d"], &ALL);
        assert!(walk.any(|event| matches!(event, Event::Entry(e) if e.name == b"\xff\n\xfe")));
        assert_eq!(walk.archive_path(), b"d/\xff\n\xfe");
    }

    /// Makes `depth` directories `n` one below the other, each with a file `z`; returns names that
    /// must be removed by [`remove_chain`].
    fn chain(tree: &Tree, depth: usize) {
        let mut at: OwnedFd = File::open(&tree.base).unwrap().into();
        for _ in 0..depth {
            mkdirat(&at, "n", Mode::RWXU).unwrap();
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            openat(&at, "z", flags, Mode::RUSR).unwrap();
            at = openat(&at, "n", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        }
    }

    /// A recursive removal would run out of descriptors.
    fn remove_chain(tree: &Tree) {
        let mut at: OwnedFd = File::open(&tree.base).unwrap().into();
        let mut depth = 0;
        while let Ok(below) = openat(&at, "n", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            at = below;
            depth += 1;
        }
        for _ in 0..depth {
            at = openat(
                &at,
                "..",
                OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .unwrap();
            unlinkat(&at, "n", AtFlags::REMOVEDIR).unwrap();
            unlinkat(&at, "z", AtFlags::empty()).unwrap();
        }
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_walked_with_few_open_directories() {
        const DEPTH: usize = 2200;
        let tree = tree(&[]);
        chain(&tree, DEPTH);
        let mut walk = tree.walk(&["."], &ALL);
        let (mut entered, mut files, mut most_open) = (0, 0, 0);
        while let Some(event) = walk.next() {
            match event {
                Event::Enter(_) => entered += 1,
                Event::Entry(entry) => files += usize::from(entry.name == b"z"),
                Event::Leave => {}
                Event::Problem(error) => panic!("{error}"),
            }
            let open = walk
                .frames
                .iter()
                .filter(|frame| frame.dir.is_some())
                .count();
            most_open = most_open.max(open);
        }
        remove_chain(&tree);
        assert_eq!((entered, files), (DEPTH, DEPTH));
        assert_eq!(most_open, MAX_OPEN_DIRS);
    }

    #[test]
    fn beyond_the_depth_limit_the_walk_reports_and_returns() {
        let tree = tree(&["a/b/c/d/x", "a/y"]);
        let mut walk = tree.walk(&["a"], &ALL);
        walk.max_depth = 3;
        for _ in 0..3 {
            assert!(matches!(walk.next(), Some(Event::Enter(_))));
        }
        let refused = walk.next();
        let deepest = tree.absolute("a/b/c/d").into_bytes();
        assert!(
            matches!(&refused, Some(Event::Problem(Error::SourceTooDeep { path, limit: 3 }))
                if *path == deepest),
            "{refused:?}"
        );
        assert_eq!(lines(walk), ["-a/b/c", "-a/b", "a/y", "-a"]);
    }

    /// Walks to the bottom of a chain, far below the first open directory.
    fn walk_to_bottom(tree: &Tree, depth: usize) -> Walk {
        let mut walk = tree.walk(&["n"], &ALL);
        for _ in 0..depth {
            assert!(matches!(walk.next(), Some(Event::Enter(_))));
        }
        walk
    }

    fn count_files(walk: Walk) -> (usize, Vec<Vec<u8>>) {
        let mut files = 0;
        let mut moved = Vec::new();
        for event in walk {
            match event {
                Event::Entry(_) => files += 1,
                Event::Problem(Error::SourceMoved { path }) => moved.push(path),
                Event::Problem(error) => panic!("{error}"),
                Event::Enter(_) | Event::Leave => {}
            }
        }
        (files, moved)
    }

    #[test]
    fn moving_a_subtree_during_the_walk_loses_nothing_above_it() {
        const DEPTH: usize = 80;
        let tree = tree(&[]);
        chain(&tree, DEPTH);
        let walk = walk_to_bottom(&tree, DEPTH);
        fs::rename(tree.base.join("n/n/n"), tree.base.join("elsewhere")).unwrap();
        // The chain has a file beside every directory but the first, which is outside the target.
        assert_eq!(count_files(walk), (DEPTH - 1, Vec::new()));
    }

    #[test]
    fn a_directory_that_cannot_be_found_again_is_reported() {
        const DEPTH: usize = 80;
        let tree = tree(&[]);
        chain(&tree, DEPTH);
        let walk = walk_to_bottom(&tree, DEPTH);
        fs::rename(tree.base.join("n/n/n"), tree.base.join("below")).unwrap();
        fs::rename(tree.base.join("n/n"), tree.base.join("parent")).unwrap();
        let (files, moved) = count_files(walk);
        assert_eq!((files, moved.len()), (DEPTH - 2, 1), "{moved:?}");
        assert_eq!(moved, [tree.base.join("n/n").as_os_str().as_bytes()]);
    }

    #[test]
    fn the_walk_finds_what_a_plain_recursion_finds() {
        fn recurse(dir: &Path, prefix: &str, found: &mut Vec<String>) {
            let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap()).collect();
            entries.sort_by_key(std::fs::DirEntry::file_name);
            for entry in entries {
                let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    found.push(format!("+{path}"));
                    recurse(&entry.path(), &format!("{path}/"), found);
                    found.push(format!("-{path}"));
                } else {
                    found.push(path);
                }
            }
        }
        for seed in 0..20_u64 {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut random = |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let tree = tree(&[]);
            for _ in 0..40 {
                let depth = random(5);
                let path: Vec<_> = (0..=depth).map(|_| format!("n{}", random(3))).collect();
                let path = tree.base.join(path.join("/"));
                if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.exists() {
                    fs::write(path, b"").unwrap();
                }
            }
            let mut expected = Vec::new();
            recurse(&tree.base, "", &mut expected);
            assert_eq!(lines(tree.walk(&["."], &ALL)), expected, "seed {seed}");
        }
    }
}
