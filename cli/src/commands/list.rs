//! `list`: the names of objects.

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use strongroom_repo::crypto::BlobKind;

use crate::{app::App, error::Code};

/// What can be typed.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// What to list
    kind: Kind,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Pieces of files and directories
    Blobs,
    /// The objects that hold blobs
    Packs,
    /// The objects that say where blobs are
    #[value(alias = "indexes")]
    Index,
    /// Snapshots
    Snapshots,
    /// Keys
    Keys,
}

#[derive(serde::Serialize)]
struct Listed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: String,
}

/// Runs it.
pub(crate) fn run(app: &App, args: &Args) -> Result<Code> {
    let repo = app.open()?;
    let show = |kind: &str, id: String| {
        if app.show.json {
            app.show.json(&Listed { kind, id })
        } else {
            app.show.line(&id)
        }
    };
    match args.kind {
        Kind::Blobs => {
            let index = repo.index();
            for pack in index.packs() {
                for entry in index.entries_of(pack.number)? {
                    let (kind, id) = (blob_word(entry.kind), entry.id.to_hex());
                    if app.show.json {
                        app.show.json(&Listed { kind, id })?;
                    } else {
                        app.show.line(&format!("{kind} {id}"))?;
                    }
                }
            }
        }
        Kind::Packs => {
            for pack in repo.index().packs() {
                show("pack", pack.id.to_hex())?;
            }
        }
        Kind::Index => {
            for id in repo.state().indexes.into_keys() {
                show("index", id.to_hex())?;
            }
        }
        Kind::Snapshots => {
            for id in repo.snapshots().into_keys() {
                show("snapshot", id.to_hex())?;
            }
        }
        Kind::Keys => {
            for key in repo.keys().context("cannot list the keys")? {
                show("key", key.slot.to_hex())?;
            }
        }
    }
    Ok(Code::Success)
}

/// The word for a kind of blob.
pub(crate) const fn blob_word(kind: BlobKind) -> &'static str {
    match kind {
        BlobKind::Data => "data",
        BlobKind::Tree => "tree",
        BlobKind::ExtentList => "extents",
        BlobKind::Snapshot => "snapshot",
    }
}
