//! The repositories that are damaged.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use strongroom_core::{
    archive::{BackupOptions, backup},
    observer::Silent,
    prune::prune,
    reachable::load_record,
};
use strongroom_repo::{
    backend::{MemBackend, ObjectName},
    codec::Hint,
    crypto::{BlobKind, Identity, KdfParams},
    env::testing::seeded,
    format::{
        frame::{self, FrameKind},
        slot::Role,
    },
    id::{SlotObjectId, SnapshotId},
    keys::{OpenedSlot, SlotLabel, make_slot},
    prune::PruneOptions,
    repository::{Repository, testing},
    writer::WriterOptions,
};

use super::{Failure, Sample};
use crate::golden::{hash, noise, tensor, text};

/// Bytes of a tensor that is just long enough to be stored as a difference.
const TENSOR: usize = 33 << 10;

impl Sample {
    /// A repository of one snapshot, for what is done to every byte.
    ///
    /// # Errors
    /// It could not be made.
    pub fn tiny() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let (store, repo, me) = create()?;
        std::fs::write(root.join("noise"), noise("noise", 300))?;
        std::fs::write(root.join("text"), text(400))?;
        save(&repo, root)?;
        leave_over(&repo)?;
        Self::of(store, &repo, me)
    }

    /// A repository with a history, in less than 64 KiB: entries of most kinds, and a tensor whose
    /// second version is stored as its difference from the first. So few entries need no segment,
    /// and no record here is too long for the log: [`Sample::wide`] has such a one.
    ///
    /// # Errors
    /// It could not be made.
    pub fn small() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let (store, repo, me) = create()?;
        std::fs::create_dir(root.join("dir"))?;
        std::fs::write(root.join("noise"), noise("noise", 900))?;
        std::fs::write(root.join("dir/text"), text(1200))?;
        std::fs::write(root.join("dir/empty"), "")?;
        std::os::unix::fs::symlink("dir/text", root.join("link"))?;
        std::fs::write(root.join("tensor"), tensor(TENSOR, 0))?;
        let first = save(&repo, root)?;
        std::fs::write(root.join("more"), noise("more", 500))?;
        std::fs::write(root.join("tensor"), tensor(TENSOR, 60))?;
        save(&repo, root)?;
        repo.remove_snapshots(&[first])?;
        prune(
            &repo,
            PruneOptions::default(),
            1,
            &(),
            &AtomicBool::new(false),
        )?;
        leave_over(&repo)?;
        std::fs::write(root.join("dir/text"), text(1500))?;
        save(&repo, root)?;
        repo.add_identity(Role::Reader, &Identity::generate(&seeded(9))?)?;
        Self::of(store, &repo, me)
    }

    /// A repository of two snapshots whose records are objects of their own.
    ///
    /// # Errors
    /// It could not be made.
    pub fn wide() -> Result<Self, Failure> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        let (store, repo, me) = create()?;
        for name in ["one", "two"] {
            std::fs::write(root.join(name), noise(name, 300))?;
            let mut options = BackupOptions::new(root.to_path_buf());
            let pattern = |n: usize| hash(format!("{name} {n}").as_bytes());
            options.about.excludes = (0..2200).map(pattern).collect();
            save_with(&repo, &options)?;
        }
        Self::of(store, &repo, me)
    }
}

fn create() -> Result<(MemBackend, Repository, OpenedSlot), Failure> {
    let store = MemBackend::new();
    let env = seeded(1);
    let backend = Arc::new(store.clone());
    let (repo, me) = testing::create(backend, env.clone(), testing::config())?;
    let label = SlotLabel {
        role: Role::Owner,
        label: "a@b".to_owned(),
    };
    let (key, kdf) = (&me.identity, KdfParams::DEFAULT);
    let inner = make_slot(&env, key, label, key, me.anchor, b"password", kdf)?.encode()?;
    let name = ObjectName::Key(SlotObjectId::new(*blake3::hash(&inner).as_bytes()));
    store.replace(name, frame::encode(FrameKind::Slot, &inner, &[])?);
    Ok((store, repo, me))
}

/// What an interrupted run leaves: packs in an index object of their own.
fn leave_over(repo: &Repository) -> Result<(), Failure> {
    let writer = repo.writer(WriterOptions::default());
    let mut bench = writer.bench()?;
    writer.put(&mut bench, BlobKind::Data, Hint::Plain, b"left over")?;
    repo.keep(&writer, &mut bench)?;
    Ok(())
}

/// Saves a folder; what is there already is compared with the newest snapshot.
fn save(repo: &Repository, root: &Path) -> Result<SnapshotId, Failure> {
    let newest = repo
        .snapshots()
        .into_iter()
        .max_by_key(|(_, state)| state.seq);
    let mut options = BackupOptions::new(root.to_path_buf());
    if let Some((id, _)) = newest {
        options.parent = Some((id, load_record(repo, id)?.snapshot));
    }
    save_with(repo, &options)
}

fn save_with(repo: &Repository, options: &BackupOptions) -> Result<SnapshotId, Failure> {
    let report = backup(repo, options, &Silent, &AtomicBool::new(false))?;
    report.snapshot.ok_or_else(|| "no snapshot".into())
}
