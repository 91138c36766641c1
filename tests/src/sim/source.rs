//! What a simulated client has on its disk, how that is stored as trees of the real format, and
//! how a tree is read back.

use std::collections::BTreeMap;

use strongroom_core::{
    Error, Result,
    format::{
        extents::{Content, ContentBuilder, Extent},
        snapshot::Snapshot,
        tree::{Body, TreeBuilder, TreeEntry},
    },
    node::{Metadata, Node, NodeKind},
    view::{Event, View},
};
use strongroom_repo::{
    codec::Hint,
    crypto::BlobKind,
    error::Error as RepoError,
    id::BlobId,
    repository::Repository,
    writer::{WorkBench, Writer},
};

use super::random::Random;
use crate::golden::noise;

/// Files by path; a path is a directory and a name.
pub(super) type Files = BTreeMap<(String, String), Vec<u8>>;

/// Chunks that all clients draw from, so that they share content.
const CHUNKS: u64 = 40;
/// From this on they are long enough to be deltas, in families whose members differ little.
const FAMILIES: u64 = 32;
/// How many are in a family.
const SIBLINGS: u64 = 4;

/// A client's disk: files as lists of chunk numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Disk(BTreeMap<(String, String), Vec<u64>>);

impl Disk {
    /// Changes a few files in so many directories.
    pub(super) fn change(&mut self, random: &mut Random, dirs: u64) {
        for _ in 0..=random.below(3) {
            let path = (
                format!("d{}", random.below(dirs)),
                format!("f{}", random.below(4)),
            );
            if random.permille(150) {
                self.0.remove(&path);
                continue;
            }
            let len = random.below(4);
            let chunks = (0..len).map(|_| random.below(CHUNKS)).collect();
            self.0.insert(path, chunks);
        }
    }

    /// The bytes of all files.
    pub(super) fn files(&self) -> Files {
        let bytes = |chunks: &Vec<u64>| chunks.iter().flat_map(|n| chunk(*n)).collect();
        self.0
            .iter()
            .map(|(path, chunks)| (path.clone(), bytes(chunks)))
            .collect()
    }
}

/// A chunk's bytes follow from its number.
fn chunk(number: u64) -> Vec<u8> {
    if number >= FAMILIES {
        let member = usize::try_from(number % SIBLINGS).unwrap_or(0);
        let mut bytes = noise(
            &format!("family {}", number / SIBLINGS),
            33_000 + 50 * member,
        );
        let own = noise(&format!("chunk {number}"), 60);
        let at = member * 900;
        for (byte, own) in bytes.iter_mut().skip(at).zip(own) {
            *byte = own;
        }
        return bytes;
    }
    let len = 30 + usize::try_from(number % 7).unwrap_or(0) * 40;
    noise(&format!("chunk {number}"), len)
}

/// The snapshot that a backup compares with: what it holds, and the tree to take files over from.
pub(super) struct Parent {
    pub(super) record: Snapshot,
    pub(super) files: Files,
}

/// Stores a disk as a tree; files that are as in the parent are taken over, as a backup does.
/// `between` is called after each file.
pub(super) fn store(
    repo: &Repository,
    writer: &Writer,
    bench: &mut WorkBench,
    disk: &Disk,
    parent: Option<&Parent>,
    between: &mut dyn FnMut(&Writer, &mut WorkBench) -> Result<(), RepoError>,
) -> Result<BlobId> {
    let mut dirs: BTreeMap<&str, TreeBuilder> = BTreeMap::new();
    let now = disk.files();
    for ((dir, name), chunks) in &disk.0 {
        let path = (dir.clone(), name.clone());
        let bytes = now.get(&path);
        let same = parent.filter(|parent| parent.files.get(&path) == bytes);
        let taken = same.and_then(|parent| taken_over(repo, parent, dir, name));
        let content = match taken {
            Some(content) => content,
            None => store_file(repo, writer, bench, chunks)?,
        };
        let size = bytes.map_or(0, Vec::len);
        let entry = TreeEntry {
            node: Node {
                name: name.clone().into_bytes(),
                kind: NodeKind::File {
                    size: u64::try_from(size).unwrap_or(u64::MAX),
                },
                meta: Metadata::default(),
            },
            body: Body::File(content),
        };
        let builder = dirs.entry(dir).or_default();
        builder.push(&entry, &mut |page| store_page(writer, bench, page))?;
        between(writer, bench)?;
    }
    let mut root = TreeBuilder::default();
    for (dir, builder) in dirs {
        let tree = builder.finish(&mut |page| store_page(writer, bench, page))?;
        let entry = TreeEntry {
            node: Node {
                name: dir.as_bytes().to_vec(),
                kind: NodeKind::Dir,
                meta: Metadata::default(),
            },
            body: Body::Dir(tree),
        };
        root.push(&entry, &mut |page| store_page(writer, bench, page))?;
    }
    root.finish(&mut |page| store_page(writer, bench, page))
}

/// The content of a file as the parent has it. A parent that cannot be read is done without.
fn taken_over(repo: &Repository, parent: &Parent, dir: &str, name: &str) -> Option<Content> {
    let view = View::open(repo, &parent.record).ok()?;
    let path = format!("/{dir}/{name}");
    match view.lookup_typed(path.as_bytes()).ok()?.body {
        Body::File(content) => Some(content),
        _ => None,
    }
}

/// The first relative of a chunk that the repository has.
fn relative(repo: &Repository, number: u64) -> Option<BlobId> {
    let siblings = (1..SIBLINGS).filter(|_| number >= FAMILIES);
    siblings
        .map(|other| repo.blob_id(BlobKind::Data, &chunk(number ^ other)))
        .find(|id| {
            let found = repo.index().find(id);
            found.is_ok_and(|found| found.is_some())
        })
}

fn store_file(
    repo: &Repository,
    writer: &Writer,
    bench: &mut WorkBench,
    chunks: &[u64],
) -> Result<Content> {
    let mut builder = ContentBuilder::default();
    for number in chunks {
        let bytes = chunk(*number);
        let ancestor = || relative(repo, *number);
        let stored = writer.put_like(bench, BlobKind::Data, Hint::Plain, &bytes, &ancestor)?;
        let extent = Extent::Data {
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            id: stored.id,
        };
        builder.push(extent, &mut |page| {
            store_page(writer, bench, &page.encode()?)
        })?;
    }
    builder.finish(&mut |page| store_page(writer, bench, &page.encode()?))
}

fn store_page(writer: &Writer, bench: &mut WorkBench, page: &[u8]) -> Result<BlobId> {
    Ok(writer.put(bench, BlobKind::Tree, Hint::Plain, page)?.id)
}

/// Reads a whole tree back; `needs` hears of every blob on the way.
pub(super) fn restore(
    repo: &Repository,
    tree: BlobId,
    needs: &mut dyn FnMut(BlobId),
) -> Result<Files> {
    let view = View::of_tree(repo, tree)?;
    needs(tree);
    let mut files = Files::new();
    let mut walk = view.walk_all();
    while let Some(event) = walk.next_event() {
        let entry = match event {
            Event::Entry(entry) => entry,
            Event::Leave => continue,
            Event::Damaged(error) => return Err(error),
        };
        match &entry.body {
            Body::Dir(tree) => needs(*tree),
            Body::File(content) => {
                let mut bytes = Vec::new();
                for extent in view.extents(content) {
                    if let Extent::Data { id, .. } = extent? {
                        needs(id);
                        bytes.extend(view.blob(&id)?);
                    }
                }
                let path = String::from_utf8_lossy(walk.path().as_bytes()).into_owned();
                let (dir, name) =
                    path.trim_start_matches('/')
                        .split_once('/')
                        .ok_or(Error::NoPath {
                            path: path.clone().into_bytes(),
                        })?;
                files.insert((dir.to_owned(), name.to_owned()), bytes);
            }
            Body::None => {}
        }
    }
    Ok(files)
}
