//! Reading the directories of a snapshot, one page at a time, in the order of names.

use std::cell::RefCell;

use anyhow::{Context as _, Result, bail, ensure};
use strongroom_core::format::tree::{Body, Entries, TreeEntry, TreePage};
use strongroom_repo::{
    id::BlobId,
    repository::{BlobReader, Repository},
};

use crate::show::text;

/// Reads directories.
pub(crate) struct Trees<'a>(RefCell<BlobReader<'a>>);

/// Most levels of directories that are followed: damage must not lead in circles.
const DEEPEST: usize = 10_000;

impl<'a> Trees<'a> {
    /// A reader of the repository's directories.
    pub(crate) fn new(repo: &'a Repository) -> Result<Self> {
        Ok(Self(RefCell::new(repo.reader()?)))
    }

    /// The entries of a directory, by name.
    pub(crate) fn entries(&self, tree: BlobId) -> Entries<'_, anyhow::Error> {
        Entries::new(tree, |id| {
            let what = || format!("cannot read tree {}", id.short());
            let page = self.0.borrow_mut().load(id).with_context(what)?;
            TreePage::decode(&page).with_context(what)
        })
    }

    /// The directory at a path below `tree`.
    pub(crate) fn folder(&self, tree: BlobId, path: &[u8]) -> Result<BlobId> {
        let mut at = tree;
        for name in names(path) {
            match self.entry(at, name)?.map(|entry| entry.body) {
                Some(Body::Dir(tree)) => at = tree,
                Some(_) => bail!("{} is not a folder", text::name(path)),
                None => bail!("there is no {} in the snapshot", text::name(path)),
            }
        }
        Ok(at)
    }

    /// The entry at a path below `tree`; `None` where there is none, or for the root itself.
    pub(crate) fn find(&self, tree: BlobId, path: &[u8]) -> Result<Option<TreeEntry>> {
        let mut at = Some(tree);
        let mut found = None;
        for name in names(path) {
            let Some(tree) = at else { return Ok(None) };
            found = self.entry(tree, name)?;
            at = match &found {
                Some(entry) => match entry.body {
                    Body::Dir(tree) => Some(tree),
                    _ => None,
                },
                None => return Ok(None),
            };
        }
        Ok(found)
    }

    fn entry(&self, tree: BlobId, name: &[u8]) -> Result<Option<TreeEntry>> {
        for entry in self.entries(tree) {
            let entry = entry?;
            if entry.node.name == name {
                return Ok(Some(entry));
            }
            if entry.node.name.as_slice() > name {
                break;
            }
        }
        Ok(None)
    }

    /// Visits everything below `tree`, a directory before what is in it; `path` is the directory's
    /// own. Where `visit` says no, a directory is not entered.
    pub(crate) fn walk(
        &self,
        tree: BlobId,
        path: &[u8],
        visit: &mut dyn FnMut(&[u8], &TreeEntry) -> Result<bool>,
    ) -> Result<()> {
        let mut path = path.to_vec();
        let mut stack = vec![(self.entries(tree), path.len())];
        while let Some((entries, parent_len)) = stack.last_mut() {
            path.truncate(*parent_len);
            let Some(entry) = entries.next() else {
                stack.pop();
                continue;
            };
            let entry = entry?;
            path.push(b'/');
            path.extend_from_slice(&entry.node.name);
            if visit(&path, &entry)?
                && let Body::Dir(tree) = entry.body
            {
                ensure!(stack.len() < DEEPEST, "folders are nested too deeply");
                stack.push((self.entries(tree), path.len()));
            }
        }
        Ok(())
    }
}

/// The names on a path.
pub(crate) fn names(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/')
        .filter(|name| !matches!(*name, b"" | b"."))
}
