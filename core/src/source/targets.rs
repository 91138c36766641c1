//! From the targets of a backup to the shape of its tree: which directories lead to them, where
//! each stands in the snapshot, which overlap.
//!
//! An absolute target stands at its own path. A relative one stands at its path with `.` and `..`
//! resolved and leading `..` left out: `../x/y` at `/x/y`. A target of nothing but such steps (`.`,
//! `..`, `/`) is spread: its entries stand at the root of the snapshot. Directories on the way are
//! saved with their metadata, but of their entries only what leads to a target. Where two targets
//! of different origin claim the same name at the root, the later becomes `name-1`.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::fs::CWD;

use super::{meta::Stat, pattern::clean, sqlite::DatabaseOptions};
use crate::{error::Error, node::DeviceNumber};

/// The resolved targets of a backup.
#[derive(Debug, Default)]
pub struct Targets {
    pub(super) roots: Vec<Root>,
    /// In the order of the targets: what each brings to the root of the snapshot.
    pub(super) claims: Vec<Claim>,
    nodes: Vec<TargetNode>,
    absolute: Vec<Vec<u8>>,
    pub(super) missing: Vec<Error>,
    /// Of targets that are block devices the content is read.
    pub(super) reads_devices: bool,
    /// Device and inode of the folder in which copies of databases are made.
    pub(super) scratch: Option<(DeviceNumber, u64)>,
}

/// A directory from which targets are reached: `/`, the working directory, or one above it.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// What to open.
    pub(super) path: PathBuf,
    /// Its absolute path, which patterns see; empty for `/`.
    pub(super) absolute: Vec<u8>,
    /// The number of `..` that lead to it from the working directory; none for `/`.
    steps_up: Option<usize>,
    /// A target itself: all its entries stand at the root of the snapshot.
    pub(super) spread: bool,
    pub(super) node: NodeIndex,
}

/// What a target brings to the root of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// One entry of a root.
    Name(usize, Vec<u8>),
    /// All entries of a root.
    Spread(usize),
}

/// A place in the tree of targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeIndex(usize);

#[derive(Clone, Debug, Default)]
struct TargetNode {
    is_target: bool,
    below: BTreeMap<Vec<u8>, NodeIndex>,
}

impl Targets {
    /// Resolves targets as given; relative ones are below `base`, an absolute path. Targets that do
    /// not exist are left out and reported by the walk; repeated ones count once.
    #[must_use]
    pub fn resolve<T: AsRef<[u8]>>(base: &Path, targets: &[T]) -> Self {
        let mut resolved = Self::default();
        for target in targets.iter().map(AsRef::as_ref) {
            if is_missing(base, target) {
                resolved.missing.push(Error::TargetMissing {
                    path: target.to_vec(),
                });
            } else {
                resolved.add(base, target);
            }
        }
        resolved
    }

    /// The same targets; of those that are block devices, or links to such, the content is read.
    #[must_use]
    pub fn reading_devices(mut self, reads_devices: bool) -> Self {
        self.reads_devices = reads_devices;
        self
    }

    /// The same targets, without the copies of databases that a backup makes meanwhile, or that one
    /// which was killed has left.
    #[must_use]
    pub fn without_copies(mut self, databases: &DatabaseOptions) -> Self {
        let scratch = databases.scratch.as_os_str().as_bytes();
        let stat = databases
            .is_used()
            .then(|| Stat::at(CWD, scratch, true).ok());
        self.scratch = stat.flatten().map(|stat| (stat.device, stat.inode));
        self
    }

    /// True if no target exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// The absolute paths of the targets that exist, in their order: what a snapshot says it holds.
    #[must_use]
    pub fn absolute_paths(&self) -> &[Vec<u8>] {
        &self.absolute
    }

    /// The targets that do not exist.
    pub fn missing(&self) -> impl Iterator<Item = &Error> {
        self.missing.iter()
    }

    pub(super) fn child(&self, of: NodeIndex, name: &[u8]) -> Option<NodeIndex> {
        self.node(of)?.below.get(name).copied()
    }

    pub(super) fn is_target(&self, node: NodeIndex) -> bool {
        self.node(node).is_some_and(|node| node.is_target)
    }

    /// True if the node leads to targets below it.
    pub(super) fn leads_on(&self, node: NodeIndex) -> bool {
        self.node(node).is_some_and(|node| !node.below.is_empty())
    }

    pub(super) fn names_below(&self, node: NodeIndex) -> impl Iterator<Item = &[u8]> {
        self.node(node)
            .into_iter()
            .flat_map(|node| node.below.keys().map(Vec::as_slice))
    }

    fn add(&mut self, base: &Path, target: &[u8]) {
        let (anchored, mut names) = clean(target);
        names.retain(|name| *name != b".");
        let steps_up = names.iter().take_while(|name| **name == b"..").count();
        let absolute = absolute_path(base, target);
        if !self.absolute.contains(&absolute) {
            self.absolute.push(absolute);
        }
        let root = self.root(base, (!anchored).then_some(steps_up));
        let Some(node) = self.roots.get(root).map(|root| root.node) else {
            return;
        };
        let claim = match names.get(steps_up) {
            Some(name) => Claim::Name(root, name.to_vec()),
            None => {
                self.roots
                    .iter_mut()
                    .skip(root)
                    .take(1)
                    .for_each(|root| root.spread = true);
                Claim::Spread(root)
            }
        };
        if !self.claims.contains(&claim) {
            self.claims.push(claim);
        }
        let mut at = node;
        for name in names.into_iter().skip(steps_up) {
            at = self.child_or_new(at, name);
        }
        if at != node
            && let Some(node) = self.nodes.get_mut(at.0)
        {
            node.is_target = true;
        }
    }

    fn root(&mut self, base: &Path, steps_up: Option<usize>) -> usize {
        if let Some(known) = self.roots.iter().position(|root| root.steps_up == steps_up) {
            return known;
        }
        let relative: PathBuf = match steps_up {
            None => PathBuf::from("/"),
            Some(0) => PathBuf::from("."),
            Some(count) => std::iter::repeat_n("..", count).collect(),
        };
        let node = self.new_node();
        self.roots.push(Root {
            path: base.join(&relative),
            absolute: match absolute_path(base, relative.as_os_str().as_bytes()) {
                root if root == b"/" => Vec::new(),
                other => other,
            },
            steps_up,
            spread: false,
            node,
        });
        self.roots.len() - 1
    }

    fn node(&self, index: NodeIndex) -> Option<&TargetNode> {
        self.nodes.get(index.0)
    }

    fn new_node(&mut self) -> NodeIndex {
        self.nodes.push(TargetNode::default());
        NodeIndex(self.nodes.len() - 1)
    }

    fn child_or_new(&mut self, parent: NodeIndex, name: &[u8]) -> NodeIndex {
        if let Some(known) = self.child(parent, name) {
            return known;
        }
        let new = self.new_node();
        if let Some(node) = self.nodes.get_mut(parent.0) {
            node.below.insert(name.to_vec(), new);
        }
        new
    }
}

/// The absolute path of a target, `.` and `..` resolved lexically.
fn absolute_path(base: &Path, target: &[u8]) -> Vec<u8> {
    let joined = base.join(OsStr::from_bytes(target));
    let (_, names) = clean(joined.as_os_str().as_bytes());
    let mut path = Vec::new();
    for name in names {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

/// Only a sure answer counts: what cannot be looked at is tried, and fails with its own message.
fn is_missing(base: &Path, target: &[u8]) -> bool {
    if target.is_empty() {
        return true;
    }
    let (_, names) = clean(target);
    let mut path = if target.starts_with(b"/") {
        PathBuf::from("/")
    } else {
        base.to_path_buf()
    };
    path.extend(names.iter().map(|name| OsStr::from_bytes(name)));
    path.symlink_metadata().is_err_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two levels with files: base is `in`.
    fn sandbox() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("in");
        std::fs::create_dir_all(base.join("a/b")).unwrap();
        std::fs::create_dir_all(dir.path().join("beside/c")).unwrap();
        (dir, base)
    }

    fn claims(base: &Path, targets: &[&str]) -> Vec<(Option<usize>, String)> {
        let targets = Targets::resolve(base, targets);
        let show = |claim: &Claim| match claim {
            Claim::Name(root, name) => (
                targets.roots[*root].steps_up,
                String::from_utf8(name.clone()).unwrap(),
            ),
            Claim::Spread(root) => (targets.roots[*root].steps_up, "*".to_owned()),
        };
        targets.claims.iter().map(show).collect()
    }

    #[test]
    fn targets_stand_where_their_cleaned_path_says() {
        let (_dir, base) = sandbox();
        let claim = |target: &str| claims(&base, &[target]).remove(0);
        assert_eq!(claim("a/b"), (Some(0), "a".to_owned()));
        assert_eq!(claim("./a/../a/"), (Some(0), "a".to_owned()));
        assert_eq!(claim("../beside/c"), (Some(1), "beside".to_owned()));
        assert_eq!(claim("."), (Some(0), "*".to_owned()));
        assert_eq!(claim("a/.."), (Some(0), "*".to_owned()));
        assert_eq!(claim(".."), (Some(1), "*".to_owned()));
        assert_eq!(claim("/"), (None, "*".to_owned()));
        assert_eq!(claim("/tmp/.."), (None, "*".to_owned()));
        assert_eq!(claim("/usr/bin"), (None, "usr".to_owned()));
    }

    #[test]
    fn repeated_targets_count_once() {
        let (_dir, base) = sandbox();
        let targets = Targets::resolve(&base, &["a", "./a", "a/", "a/b"]);
        assert_eq!(targets.claims, [Claim::Name(0, b"a".to_vec())]);
        let base = base.display().to_string();
        assert_eq!(
            targets.absolute_paths(),
            [
                format!("{base}/a").into_bytes(),
                format!("{base}/a/b").into_bytes()
            ]
        );
    }

    #[test]
    fn targets_that_do_not_exist_are_told_and_leave_no_trace() {
        let (_dir, base) = sandbox();
        let targets = Targets::resolve(&base, &["gone/x", "", "a/b/c/d", "a\0b"]);
        assert!(targets.is_empty() && targets.absolute_paths().is_empty());
        let missing: Vec<_> = targets.missing().filter_map(Error::source_path).collect();
        assert_eq!(missing, [&b"gone/x"[..], b"", b"a/b/c/d", b"a\0b"]);
    }

    #[test]
    fn a_dangling_link_exists() {
        let (_dir, base) = sandbox();
        std::os::unix::fs::symlink("nowhere", base.join("link")).unwrap();
        assert!(!Targets::resolve(&base, &["link/"]).is_empty());
    }
}
