//! For tests: repositories whose owner needs no password, since one costs more than what is tested.
//! They differ in their configuration alone, and all that they are follows from an environment.

use std::sync::Arc;

use super::{CreateOptions, OpenOptions, Repository, Secret};
use crate::{
    backend::Backend,
    crypto::{Identity, KdfParams},
    env::{Env, Timestamp},
    error::Result,
    format::{config::ConfigBody, index::PackGroup, slot::Anchor},
    id::RepoId,
    keys::OpenedSlot,
};

/// A configuration with small chunks and packs.
#[must_use]
pub fn config() -> ConfigBody {
    ConfigBody {
        created: Timestamp::default(),
        program: "test".to_owned(),
        chunker: 1,
        chunk_min: 64 << 10,
        chunk_avg: 256 << 10,
        chunk_max: 1 << 20,
        pack_target: 4 << 20,
    }
}

/// What makes a repository of this configuration.
#[must_use]
pub fn options(config: ConfigBody) -> CreateOptions {
    CreateOptions {
        config,
        label: "a@b".to_owned(),
        kdf: KdfParams::DEFAULT,
        open: OpenOptions::default(),
    }
}

/// Makes a repository; also gives what [`open`] takes.
///
/// # Errors
/// As [`Repository::create`].
pub fn create(
    backend: Arc<dyn Backend>,
    env: Env,
    config: ConfigBody,
) -> Result<(Repository, OpenedSlot)> {
    let identity = Identity::generate(&env)?;
    let anchor = Anchor {
        repo: RepoId::new([0; 16]),
        owner: identity.public().sign,
    };
    let opened = OpenedSlot { identity, anchor };
    let secret = Secret::Opened(Box::new(opened.clone()));
    let repo = Repository::create(backend, env, secret, options(config))?;
    let anchor = Anchor {
        repo: repo.id(),
        ..anchor
    };
    Ok((repo, OpenedSlot { anchor, ..opened }))
}

/// Opens a repository as its owner.
///
/// # Errors
/// As [`Repository::open`].
pub fn open(backend: Arc<dyn Backend>, env: Env, me: &OpenedSlot) -> Result<Repository> {
    let secret = Secret::Opened(Box::new(me.clone()));
    Repository::open(backend, env, secret, OpenOptions::default())
}

/// Indexes packs as if they were there.
///
/// # Errors
/// As [`Repository::checkpoint`].
pub fn index_made_up(repo: &Repository, packs: Vec<PackGroup>) -> Result<()> {
    repo.index_groups(packs)
}
