//! What a client keeps about a repository in a folder of its own: the memory of how far the log
//! reached, by which a rollback or a fork is noticed, and a cache of the folded state.
//!
//! The memory is a promise: where it is damaged the client is told. The cache is a convenience:
//! where it is damaged, stale or of another log it is rebuilt, and nothing else happens.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{error::LogError, state::State};
use crate::{
    format::{
        DecodeError,
        record::{self, Ext},
    },
    id::{Hash, RepoId, RunId},
};

const HASH_LEN: usize = 32;
/// A cached state is read by the program that wrote it alone: what [`State`] consists of may
/// change from one to the next.
const STATE_WRITER: &str = concat!("strongroom ", env!("CARGO_PKG_VERSION"), " state 2");
/// Largest file read back.
const MAX_FILE_LEN: u64 = 1 << 30;

/// How far a client has seen the log of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The repository.
    pub repo: RepoId,
    /// Hash of entry 1.
    pub genesis: Hash,
    /// The last entry seen.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl Memory {
    /// Checks that a log extends what was seen: `hash_of` tells the hashes of its entries.
    ///
    /// # Errors
    /// [`LogError::RolledBack`].
    pub fn check(
        &self,
        genesis: Hash,
        tail: u64,
        hash_of: &dyn Fn(u64) -> Option<Hash>,
    ) -> Result<(), LogError> {
        let at = if genesis != self.genesis {
            1
        } else if tail < self.seq {
            tail.saturating_add(1)
        } else if hash_of(self.seq) != Some(self.hash) {
            self.seq
        } else {
            return Ok(());
        };
        Err(LogError::RolledBack { at, tail })
    }

    /// The memory of `repo` in `folder`; `None` where there is none.
    ///
    /// # Errors
    /// [`LogError::MemoryDamaged`], [`LogError::StateFile`].
    pub fn load(folder: &Path, repo: RepoId) -> Result<Option<Self>, LogError> {
        let path = memory_path(folder, repo);
        let Some(bytes) = read_file(&path)? else {
            return Ok(None);
        };
        let memory = decode::<Self>(&bytes, "memory of a repository");
        let memory = memory.and_then(|memory| {
            if memory.repo == repo {
                return Ok(memory);
            }
            Err(DecodeError::Malformed {
                what: "memory of a repository",
            })
        });
        memory
            .map(Some)
            .map_err(|source| LogError::MemoryDamaged { path, source })
    }

    /// Saves the memory, durably and all at once. An older memory never replaces a newer one of
    /// the same log, unless `forget` says that the caller has decided so.
    ///
    /// # Errors
    /// [`LogError::StateFile`]; [`LogError::MemoryDamaged`] where the one that is there cannot
    /// be read and is not to be forgotten.
    pub fn save(&self, folder: &Path, run: RunId, forget: bool) -> Result<(), LogError> {
        if !forget
            && let Some(there) = Self::load(folder, self.repo)?
            && there.genesis == self.genesis
            && there.seq > self.seq
        {
            return Ok(());
        }
        let path = memory_path(folder, self.repo);
        write_file(folder, &path, run, self, "memory of a repository")
    }
}

/// The cached state of `repo` in `folder`, if there is a usable one.
#[must_use]
pub fn load_state(folder: &Path, repo: RepoId) -> Option<State> {
    let bytes = read_file(&state_path(folder, repo)).ok()??;
    let (writer, state) = decode::<(String, State)>(&bytes, "cached log state").ok()?;
    (writer == STATE_WRITER && state.keys.repo == repo).then_some(state)
}

/// Caches a state.
///
/// # Errors
/// [`LogError::StateFile`], [`LogError::TooLarge`].
pub fn save_state(folder: &Path, run: RunId, state: &State) -> Result<(), LogError> {
    let path = state_path(folder, state.keys.repo);
    let fields = (STATE_WRITER, state);
    write_file(folder, &path, run, &fields, "cached log state")
}

fn memory_path(folder: &Path, repo: RepoId) -> PathBuf {
    folder.join(format!("{}.seen", repo.to_hex()))
}

fn state_path(folder: &Path, repo: RepoId) -> PathBuf {
    folder.join(format!("{}.state", repo.to_hex()))
}

fn encode<T: Serialize>(fields: &T, what: &'static str) -> Result<Vec<u8>, DecodeError> {
    let mut out = record::encode(fields, &Ext::default(), what)?;
    let hash = blake3::hash(&out);
    out.extend_from_slice(hash.as_bytes());
    Ok(out)
}

fn decode<T: Serialize + DeserializeOwned>(
    bytes: &[u8],
    what: &'static str,
) -> Result<T, DecodeError> {
    let cut = DecodeError::Truncated { what };
    let (fields, hash) = bytes.split_last_chunk::<HASH_LEN>().ok_or(cut)?;
    if blake3::hash(fields) != *hash {
        return Err(DecodeError::Checksum { what });
    }
    record::decode(fields, what).map(|(fields, _)| fields)
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, LogError> {
    let failed = |source| LogError::StateFile {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if is_missing(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    let mut file = file.take(MAX_FILE_LEN);
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(bytes))
}

/// Nothing is there, nor could be.
fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

/// Makes a folder and those above it that are missing, each of them durable in the one above.
fn make_folder(folder: &Path) -> io::Result<()> {
    let above = folder.ancestors().filter(|at| !at.as_os_str().is_empty());
    let missing: Vec<_> = above.take_while(|at| !at.exists()).collect();
    fs::create_dir_all(folder)?;
    for made in missing.into_iter().rev() {
        File::open(made.join(".."))?.sync_all()?;
    }
    Ok(())
}

fn write_file<T: Serialize>(
    folder: &Path,
    path: &Path,
    run: RunId,
    fields: &T,
    what: &'static str,
) -> Result<(), LogError> {
    let bytes = encode(fields, what).map_err(LogError::too_large)?;
    let temp = path.with_added_extension(format!("{}.tmp", run.to_hex()));
    let write = || {
        make_folder(folder)?;
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| {
        // The name is this run's own; what is left of it is of no use to anybody.
        let _ = fs::remove_file(&temp);
        LogError::StateFile {
            action: "write",
            path: path.to_owned(),
            source,
        }
    })
}
