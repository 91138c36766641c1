//! The files of each generation, and what a folder holds.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::world::Generation;
use crate::golden::noise;

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Held {
    File(Vec<u8>),
    Dir,
    Link(PathBuf),
}

pub(super) type Tree = BTreeMap<PathBuf, Held>;

/// The files of a generation.
pub(super) fn files(generation: Generation) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![
        ("empty".to_owned(), Vec::new()),
        (
            "deep/er/text".to_owned(),
            crate::golden::text(5000).into_bytes(),
        ),
    ];
    // Many of them: a checkpoint is made between two.
    let mut add = |name: &str, count: usize| {
        for n in 0..count {
            let name = format!("{name}{n}");
            let bytes = noise(&name, 4000 + 10 * n);
            files.push((name, bytes));
        }
    };
    match generation {
        Generation::One => {
            add("steady", 4);
            add("going", 10);
        }
        Generation::Two => {
            add("steady", 4);
            add("coming", 8);
        }
        Generation::Wide => add("wide", 80),
        Generation::Next => {
            add("going", 2);
            add("coming", 2);
            add("new", 2);
        }
    }
    let mut changed = noise("big", 20_000);
    if generation != Generation::One {
        changed.splice(10_000..10_010, noise("inserted", 500));
    }
    files.push(("big".to_owned(), changed));
    files
}

/// Everything below a folder.
pub(super) fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let kind = fs::symlink_metadata(&path).unwrap().file_type();
            let held = if kind.is_dir() {
                open.push(path.clone());
                Held::Dir
            } else if kind.is_symlink() {
                Held::Link(fs::read_link(&path).unwrap())
            } else {
                Held::File(fs::read(&path).unwrap())
            };
            let name = path
                .strip_prefix(root)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec();
            tree.insert(PathBuf::from(String::from_utf8(name).unwrap()), held);
        }
    }
    tree
}
