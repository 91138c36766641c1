//! What the disk holds: folders and files by their nodes. Cloning it is cheap, so that many runs
//! can begin with the same disk.
//!
//! Each node knows also what a power cut leaves of it, which is as little as a disk may keep: of a
//! file what it held when it was last synced, of a folder the names that it had then. A name says
//! nothing of the content, nor the content of the name; a rename from folder to folder is two
//! changes, of which each lasts with its folder.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::wire::{self, Reply, Request, words};

const ROOT: u64 = 1;
const NOENT: i32 = -2;
const EXIST: i32 = -17;
const NOTDIR: i32 = -20;
const INVAL: i32 = -22;
const NOSYS: i32 = -38;
const NOTEMPTY: i32 = -39;

const FOLDER: u32 = 0o40_000;
const FILE: u32 = 0o100_000;

/// Seconds for which the kernel may believe that a folder has its name: nobody takes it away.
const FOLDERS_STAY: u64 = 1 << 20;

#[derive(Clone)]
struct Node {
    mode: u32,
    body: Body,
    /// What of the body is synced.
    synced: Body,
}

#[derive(Clone)]
enum Body {
    Folder(BTreeMap<Vec<u8>, u64>),
    File(Arc<Vec<u8>>),
}

impl Node {
    fn folder(mode: u32) -> Self {
        Self::new(FOLDER | (mode & 0o7777), Body::Folder(BTreeMap::new()))
    }

    /// An empty one of which nothing is synced.
    fn new(mode: u32, body: Body) -> Self {
        Self {
            mode,
            synced: body.clone(),
            body,
        }
    }
}

/// A file system. A file that lost its names stays, because it may be open or come back.
#[derive(Clone)]
pub(crate) struct Tree {
    nodes: BTreeMap<u64, Node>,
    last: u64,
    files: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::folder(0o755))]),
            last: ROOT,
            files: 0,
        }
    }
}

impl Tree {
    /// What is there after it was unmounted in peace: everything that has a name, all of it
    /// synced.
    pub(super) fn unmounted(&self) -> Self {
        let mut tree = self.clone();
        for node in tree.nodes.values_mut() {
            node.synced = node.body.clone();
        }
        tree.drop_unnamed();
        tree
    }

    /// What is there after the power was cut: what is synced, in folders whose names are.
    pub(super) fn after_power_cut(&self) -> Self {
        let mut tree = self.clone();
        for node in tree.nodes.values_mut() {
            node.body = node.synced.clone();
        }
        tree.drop_unnamed();
        tree
    }

    /// Leaves out what cannot be reached by a name.
    fn drop_unnamed(&mut self) {
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(node) = next.pop() {
            if reached.insert(node)
                && let Ok(names) = self.folder(node)
            {
                next.extend(names.values());
            }
        }
        self.nodes.retain(|node, _| reached.contains(node));
    }

    /// From now on a power cut leaves what is there of this node.
    fn sync(&mut self, node: u64) -> Reply {
        let node = self.nodes.get_mut(&node).ok_or(NOENT)?;
        node.synced = node.body.clone();
        Ok(Vec::new())
    }

    pub(super) fn names_in_root(&self) -> usize {
        self.folder(ROOT).map_or(0, BTreeMap::len)
    }

    pub(super) fn files_made(&self) -> usize {
        self.files
    }

    /// The path that a request is about; of a rename the new one.
    pub(super) fn place(&self, request: &Request<'_>) -> String {
        let renamed = |names: usize| {
            let new = names + request.name(names).len() + 1;
            (request.u64(0), Some(request.name(new)))
        };
        let (folder, name) = match request.kind() {
            wire::LOOKUP | wire::UNLINK | wire::RMDIR => (request.node(), Some(request.name(0))),
            wire::MKDIR | wire::LINK => (request.node(), Some(request.name(8))),
            wire::CREATE => (request.node(), Some(request.name(16))),
            wire::RENAME => renamed(8),
            wire::RENAME2 => renamed(16),
            _ => (request.node(), None),
        };
        let mut path = self.path(folder);
        if let Some(name) = name {
            path.push('/');
            path.push_str(&String::from_utf8_lossy(&name));
        }
        path
    }

    fn path(&self, node: u64) -> String {
        if node == ROOT {
            return String::new();
        }
        let named = self.nodes.iter().find_map(|(above, holder)| {
            let Body::Folder(names) = &holder.body else {
                return None;
            };
            let (name, _) = names.iter().find(|(_, named)| **named == node)?;
            Some((*above, name))
        });
        match named {
            Some((above, name)) => {
                format!("{}/{}", self.path(above), String::from_utf8_lossy(name))
            }
            None => "(no name)".to_owned(),
        }
    }

    /// What was not synced is lost. A file keeps its length, with zeros where it held nothing
    /// before; a folder has the names that it had.
    pub(super) fn lose(&mut self, node: u64) {
        let Some(node) = self.nodes.get_mut(&node) else {
            return;
        };
        match (&mut node.body, &node.synced) {
            (Body::File(content), Body::File(synced)) => {
                let len = content.len();
                let mut kept = synced.as_ref().clone();
                kept.resize(len, 0);
                *content = Arc::new(kept);
            }
            (body, synced) => *body = synced.clone(),
        }
    }

    /// What is answered, a write taking at most so many bytes; none where no answer is wanted.
    pub(super) fn answer(&mut self, request: &Request<'_>, at_most: Option<u32>) -> Option<Reply> {
        let node = request.node();
        Some(match request.kind() {
            wire::FORGET | wire::BATCH_FORGET | wire::INTERRUPT => return None,
            wire::INIT => Ok(wire::init()),
            wire::LOOKUP => self
                .child(node, &request.name(0))
                .map(|node| self.entry(node)),
            wire::GETATTR => Ok(self.attributes(node)),
            wire::SETATTR => self.change(node, request),
            wire::MKDIR => {
                let folder = Node::folder(request.u32(0));
                self.make(node, request.name(8), folder)
                    .map(|node| self.entry(node))
            }
            wire::CREATE => self.create(node, request),
            wire::UNLINK | wire::RMDIR => self.remove(node, &request.name(0)),
            wire::LINK => self.link(node, request.u64(0), request.name(8)),
            wire::RENAME => self.rename(request, 8, false),
            wire::RENAME2 => match request.u32(8) {
                0 => self.rename(request, 16, false),
                1 => self.rename(request, 16, true),
                _ => Err(INVAL),
            },
            wire::OPEN | wire::OPENDIR => Ok(words(&[0, 0])),
            wire::READ => self.read(node, request.u64(8), request.u32(16)),
            wire::WRITE => self.write(node, request.u64(8), request.content(at_most)),
            wire::FALLOCATE => self.grow(node, request.u64(8) + request.u64(16)),
            wire::READDIR => self.list(node, request.u64(8), request.u32(16)),
            wire::STATFS => Ok(wire::statfs()),
            wire::FSYNC | wire::FSYNCDIR => self.sync(node),
            wire::FLUSH | wire::RELEASE | wire::RELEASEDIR => Ok(Vec::new()),
            _ => Err(NOSYS),
        })
    }

    fn folder(&self, node: u64) -> Result<&BTreeMap<Vec<u8>, u64>, i32> {
        match self.nodes.get(&node).map(|node| &node.body) {
            Some(Body::Folder(names)) => Ok(names),
            Some(Body::File(_)) => Err(NOTDIR),
            None => Err(NOENT),
        }
    }

    fn folder_mut(&mut self, node: u64) -> Result<&mut BTreeMap<Vec<u8>, u64>, i32> {
        match self.nodes.get_mut(&node).map(|node| &mut node.body) {
            Some(Body::Folder(names)) => Ok(names),
            Some(Body::File(_)) => Err(NOTDIR),
            None => Err(NOENT),
        }
    }

    fn file_mut(&mut self, node: u64) -> Result<&mut Vec<u8>, i32> {
        match self.nodes.get_mut(&node).map(|node| &mut node.body) {
            Some(Body::File(content)) => Ok(Arc::make_mut(content)),
            Some(Body::Folder(_)) => Err(INVAL),
            None => Err(NOENT),
        }
    }

    fn child(&self, folder: u64, name: &[u8]) -> Result<u64, i32> {
        self.folder(folder)?.get(name).copied().ok_or(NOENT)
    }

    fn make(&mut self, folder: u64, name: Vec<u8>, node: Node) -> Result<u64, i32> {
        let number = self.last + 1;
        let names = self.folder_mut(folder)?;
        if names.contains_key(&name) {
            return Err(EXIST);
        }
        names.insert(name, number);
        self.last = number;
        self.nodes.insert(number, node);
        Ok(number)
    }

    fn create(&mut self, folder: u64, request: &Request<'_>) -> Reply {
        let mode = FILE | (request.u32(4) & 0o7777);
        let file = Node::new(mode, Body::File(Arc::default()));
        let node = self.make(folder, request.name(16), file)?;
        self.files += 1;
        let mut out = self.entry(node);
        out.extend(words(&[0, 0]));
        Ok(out)
    }

    fn remove(&mut self, folder: u64, name: &[u8]) -> Reply {
        let node = self.child(folder, name)?;
        if self.folder(node).is_ok_and(|names| !names.is_empty()) {
            return Err(NOTEMPTY);
        }
        self.folder_mut(folder)?.remove(name);
        Ok(Vec::new())
    }

    fn link(&mut self, folder: u64, node: u64, name: Vec<u8>) -> Reply {
        let names = self.folder_mut(folder)?;
        if names.contains_key(&name) {
            return Err(EXIST);
        }
        names.insert(name, node);
        Ok(self.entry(node))
    }

    /// Of the two names the first begins at `names`.
    fn rename(&mut self, request: &Request<'_>, names: usize, refuse: bool) -> Reply {
        let old = request.name(names);
        let new = request.name(names + old.len() + 1);
        let (from, to) = (request.node(), request.u64(0));
        let node = self.child(from, &old)?;
        if refuse && self.child(to, &new).is_ok() {
            return Err(EXIST);
        }
        self.folder_mut(from)?.remove(&old);
        self.folder_mut(to)?.insert(new, node);
        Ok(Vec::new())
    }

    fn change(&mut self, node: u64, request: &Request<'_>) -> Reply {
        const MODE: u32 = 1;
        const SIZE: u32 = 1 << 3;
        let valid = request.u32(0);
        if valid & SIZE != 0 {
            let len = usize::try_from(request.u64(16)).unwrap();
            self.file_mut(node)?.resize(len, 0);
        }
        if valid & MODE != 0
            && let Some(node) = self.nodes.get_mut(&node)
        {
            node.mode = (node.mode & !0o7777) | (request.u32(68) & 0o7777);
        }
        Ok(self.attributes(node))
    }

    fn read(&mut self, node: u64, offset: u64, len: u32) -> Reply {
        let Some(Body::File(content)) = self.nodes.get(&node).map(|node| &node.body) else {
            return Err(INVAL);
        };
        let start = usize::try_from(offset).unwrap().min(content.len());
        let end = content.len().min(start + len as usize);
        Ok(content[start..end].to_vec())
    }

    fn write(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Reply {
        let start = usize::try_from(offset).unwrap();
        let content = self.file_mut(node)?;
        content.resize(content.len().max(start + bytes.len()), 0);
        content[start..start + bytes.len()].copy_from_slice(bytes);
        let len = u32::try_from(bytes.len()).unwrap();
        Ok([len, 0].into_iter().flat_map(u32::to_ne_bytes).collect())
    }

    fn grow(&mut self, node: u64, len: u64) -> Reply {
        let content = self.file_mut(node)?;
        content.resize(content.len().max(usize::try_from(len).unwrap()), 0);
        Ok(Vec::new())
    }

    /// What comes after the node `after`, as far as there is room.
    fn list(&self, folder: u64, after: u64, room: u32) -> Reply {
        let mut entries: Vec<_> = self
            .folder(folder)?
            .iter()
            .map(|(name, node)| (*node, name))
            .filter(|(node, _)| *node > after)
            .collect();
        entries.sort();
        let mut out = Vec::new();
        for (node, name) in entries {
            let entry = wire::dirent(node, name, self.folder(node).is_ok());
            if out.len() + entry.len() > room as usize {
                break;
            }
            out.extend(entry);
        }
        Ok(out)
    }

    /// A node with its generation and how long its name may be believed.
    fn entry(&self, node: u64) -> Vec<u8> {
        let stays = if self.folder(node).is_ok() {
            FOLDERS_STAY
        } else {
            0
        };
        let mut out = words(&[node, 0, stays, 0, 0]);
        out.extend(self.attr(node));
        out
    }

    fn attributes(&self, node: u64) -> Vec<u8> {
        let mut out = words(&[0, 0]);
        out.extend(self.attr(node));
        out
    }

    fn attr(&self, node: u64) -> Vec<u8> {
        let found = self.nodes.get(&node);
        let len = match found.map(|node| &node.body) {
            Some(Body::File(content)) => content.len() as u64,
            _ => 0,
        };
        let mode = found.map_or(0, |node| node.mode);
        let mut out = words(&[node, len, len.div_ceil(512), 0, 0, 0]);
        // Three times nanoseconds, mode, links, owner, group, device, block size, flags.
        for word in [0, 0, 0, mode, self.links(node), 0, 0, 0, 4096, 0] {
            out.extend(word.to_ne_bytes());
        }
        out
    }

    /// How many names a node has.
    fn links(&self, node: u64) -> u32 {
        let folders = self.nodes.values().filter_map(|node| match &node.body {
            Body::Folder(names) => Some(names),
            Body::File(_) => None,
        });
        let links = folders.flat_map(BTreeMap::values);
        u32::try_from(links.filter(|named| **named == node).count()).unwrap()
    }
}
