//! For tests: a repository in memory, and backups into it.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_repo::{
    backend::MemBackend,
    crypto::{Identity, KdfParams},
    env::{Timestamp, testing::seeded},
    format::{config::ConfigBody, slot::Anchor},
    id::RepoId,
    keys::OpenedSlot,
    repository::{CreateOptions, OpenOptions, Repository, Secret},
    writer::WriterOptions,
};

use crate::{
    archive::{About, BackupOptions, BackupReport, FIRST_CHECKPOINT, backup},
    observer::Recorder,
    source::{filter::FilterRules, meta::Accounts, sqlite::DatabaseOptions},
};

/// A repository with small chunks and packs.
pub(crate) fn create(store: &MemBackend) -> Repository {
    let env = seeded(1);
    let identity = Identity::generate(&env).unwrap();
    let anchor = Anchor {
        repo: RepoId::new([0; 16]),
        owner: identity.public().sign,
    };
    let secret = Secret::Opened(Box::new(OpenedSlot { identity, anchor }));
    let options = CreateOptions {
        config: ConfigBody {
            created: Timestamp::default(),
            program: "test".to_owned(),
            chunker: 1,
            chunk_min: 64 << 10,
            chunk_avg: 256 << 10,
            chunk_max: 1 << 20,
            pack_target: 4 << 20,
        },
        label: "a@b".to_owned(),
        kdf: KdfParams::DEFAULT,
        open: OpenOptions::default(),
    };
    Repository::create(Arc::new(store.clone()), env, secret, options).unwrap()
}

/// Backs up what is in a directory; nothing may go wrong.
pub(crate) fn back_up(repo: &Repository, from: &Path) -> BackupReport {
    back_up_as(repo, from, About::default())
}

/// As [`back_up`], with what the snapshot says of itself.
pub(crate) fn back_up_as(repo: &Repository, from: &Path, about: About) -> BackupReport {
    let options = options(from, about);
    let heard = Recorder::default();
    let report = backup(repo, &options, &heard, &AtomicBool::new(false)).unwrap();
    assert_eq!(heard.problems(), Vec::<String>::new());
    report
}

/// How the fixture backs up a directory.
pub(crate) fn options(from: &Path, about: About) -> BackupOptions {
    BackupOptions {
        targets: vec![b".".to_vec()],
        base: from.to_path_buf(),
        filter: FilterRules::default(),
        parent: None,
        bases: Vec::new(),
        about,
        writer: WriterOptions {
            pack_target: 4 << 20,
            ..WriterOptions::default()
        },
        workers: 2,
        accounts: Accounts::default(),
        read_devices: false,
        with_atime: false,
        ignore_ctime: false,
        skip_if_unchanged: false,
        count_first: false,
        checkpoint: FIRST_CHECKPOINT,
        databases: DatabaseOptions::default(),
    }
}
