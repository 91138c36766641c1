//! `cat`: an object as it is stored, as JSON or as bytes.

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};
use strongroom_core::{
    format::tree::{Body, TreeEntry, TreePage},
    snapshots::{self, SnapshotFilter},
};
use strongroom_repo::{
    backend::ObjectName,
    crypto::BlobKind,
    format::pack::BlobEntry,
    id::{BlobId, IndexId, PackId, SlotId},
    index::PackInfo,
    limits::MAX_PACK_LEN,
    repository::Repository,
};

use super::list::blob_word;
use crate::{
    app::App,
    error::Code,
    select::{self, one_of},
    show::{
        json::{NodeJson, SnapshotJson},
        text,
    },
};

/// What can be typed.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
`strongroom cat config` is the usual way to ask whether there is a repository: it ends with
exit code 10 where there is none.

A blob and a pack are printed as bytes, everything else as JSON.")]
pub(crate) struct Args {
    /// What to show
    kind: Kind,

    /// Its ID, or how it begins; for a tree also a snapshot's
    #[arg(
        value_name = "ID",
        required_if_eq_any = [
            ("kind", "snapshot"),
            ("kind", "index"),
            ("kind", "pack"),
            ("kind", "blob"),
            ("kind", "tree"),
            ("kind", "key"),
        ],
    )]
    id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// How the repository is written
    Config,
    /// A snapshot's record
    Snapshot,
    /// What an index says
    Index,
    /// A pack's sealed bytes
    Pack,
    /// A blob's plain bytes
    Blob,
    /// A page of a directory
    Tree,
    /// A key, without its secrets
    Key,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let repo = app.open()?;
    let id = args.id.as_deref().unwrap_or_default();
    match args.kind {
        Kind::Config => {
            ensure!(args.id.is_none(), "there is only one config: it has no ID");
            app.show.pretty_json(&config(&repo))?;
        }
        Kind::Snapshot => {
            let found = select::find(&repo, id, &SnapshotFilter::default())?;
            app.show
                .pretty_json(&SnapshotJson::new(None, &found.record))?;
        }
        Kind::Index => app.show.pretty_json(&index(&repo, id)?)?,
        Kind::Pack => app.show.bytes(&pack(&repo, id)?)?,
        Kind::Blob => {
            let blob = find_blob(&repo, id)?;
            app.show.bytes(&load(&repo, &blob)?)?;
        }
        Kind::Tree => app.show.pretty_json(&tree(&repo, id)?)?,
        Kind::Key => app.show.pretty_json(&key(&repo, id)?)?,
    }
    Ok(Code::Success)
}

fn config(repo: &Repository) -> Value {
    let config = repo.config();
    json!({
        "version": 1,
        "id": repo.id().to_hex(),
        "created": text::rfc3339(config.created),
        "program_version": config.program,
        "chunker": config.chunker,
        "chunk_min": config.chunk_min,
        "chunk_avg": config.chunk_avg,
        "chunk_max": config.chunk_max,
        "pack_target": config.pack_target,
    })
}

fn index(repo: &Repository, prefix: &str) -> Result<Value> {
    let ids = repo.state().indexes.into_keys();
    let id = one_of("index", prefix, ids, IndexId::to_hex)?;
    let index = repo.index();
    let packs: Vec<_> = index
        .packs()
        .filter(|pack| pack.index == id)
        .map(|pack| Ok(pack_json(&pack, &index.entries_of(pack.number)?)))
        .collect::<Result<_>>()?;
    Ok(json!({ "packs": packs }))
}

fn pack_json(pack: &PackInfo, entries: &[BlobEntry]) -> Value {
    let blobs: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "id": entry.id.to_hex(),
                "type": blob_word(entry.kind),
                "offset": entry.offset,
                "length": entry.sealed_len,
                "uncompressed_length": entry.plain_len,
                "codec": entry.codec,
                "base": entry.base.map(BlobId::to_hex),
            })
        })
        .collect();
    json!({ "id": pack.id.to_hex(), "length": pack.len, "blobs": blobs })
}

fn pack(repo: &Repository, prefix: &str) -> Result<Vec<u8>> {
    let index = repo.index();
    let ids = index.packs().map(|pack| pack.id);
    let id = one_of("pack", prefix, ids, PackId::to_hex)?;
    repo.backend()
        .read_all(&ObjectName::Pack(id), u64::from(MAX_PACK_LEN))
        .with_context(|| format!("cannot read pack {}", id.short()))
}

fn find_blob(repo: &Repository, prefix: &str) -> Result<BlobId> {
    let index = repo.index();
    if let Some(id) = BlobId::parse_hex(prefix) {
        ensure!(index.contains(&id)?, "there is no blob {prefix}");
        return Ok(id);
    }
    let mut ids = Vec::new();
    for id in index.blob_ids()? {
        let id = id?;
        if id.to_hex().starts_with(&prefix.to_ascii_lowercase()) {
            ids.push(id);
        }
    }
    one_of("blob", prefix, ids.into_iter(), BlobId::to_hex)
}

fn load(repo: &Repository, blob: &BlobId) -> Result<Vec<u8>> {
    repo.reader()
        .and_then(|mut reader| reader.load(blob))
        .with_context(|| format!("cannot read blob {}", blob.short()))
}

/// The page of a directory: by its own id, or the root of a snapshot.
fn tree(repo: &Repository, id: &str) -> Result<Value> {
    let blob = match snapshots::find(repo, id, &SnapshotFilter::default()) {
        Ok(found) => found.record.tree,
        Err(_) => find_blob(repo, id)
            .with_context(|| format!("{id:?} is neither a snapshot nor a tree"))?,
    };
    let kind = repo.index().find(&blob)?.map(|found| found.entry.kind);
    if kind.is_some_and(|kind| kind != BlobKind::Tree) {
        bail!("blob {} is not a tree", blob.short());
    }
    let page = TreePage::decode(&load(repo, &blob)?)
        .with_context(|| format!("tree {} is damaged", blob.short()))?;
    Ok(match page {
        TreePage::Leaf(entries) => {
            let nodes: Vec<_> = entries.iter().map(node_json).collect::<Result<_>>()?;
            json!({ "nodes": nodes })
        }
        TreePage::Inner(children) => {
            let pages: Vec<_> = children
                .iter()
                .map(|child| {
                    let last = String::from_utf8_lossy(&child.last);
                    json!({ "last_name": last, "tree": child.id.to_hex() })
                })
                .collect();
            json!({ "pages": pages })
        }
    })
}

fn node_json(entry: &TreeEntry) -> Result<Value> {
    let mut value = serde_json::to_value(NodeJson::new(&entry.node, None))?;
    if let (Body::Dir(tree), Some(object)) = (&entry.body, value.as_object_mut()) {
        object.insert("subtree".to_owned(), tree.to_hex().into());
    }
    Ok(value)
}

fn key(repo: &Repository, prefix: &str) -> Result<Value> {
    let keys = repo.keys().context("cannot list the keys")?;
    let slots = keys.iter().filter(|key| key.live).map(|key| key.slot);
    let slot = one_of("key", prefix, slots, SlotId::to_hex)?;
    let objects: Vec<_> = keys
        .iter()
        .filter(|key| key.slot == slot)
        .map(|key| {
            json!({
                "object": key.object.to_hex(),
                "label": key.label,
                "role": format!("{:?}", key.role).to_lowercase(),
                "created": text::rfc3339(key.created),
            })
        })
        .collect();
    Ok(json!({ "id": slot.to_hex(), "slots": objects }))
}
