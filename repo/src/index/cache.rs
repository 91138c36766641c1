//! The local cache of the index: the folder `<cache>/<repo id>/index/`, a few table files. Each
//! covers some index objects; together with what is loaded anew they cover the live ones.
//!
//! What must stay true: a table file is a function of the index objects it covers, so it never
//! goes stale, it only stops being wanted; it appears under its name as a whole and is never
//! written again, so that two processes can share the folder; any file here may vanish, be cut or
//! be damaged at any time, at no more cost than loading index objects again. Nothing is synced:
//! what a crash leaves half written fails its checksums. A cache that cannot be written is done
//! without. This is the only file of the index that writes files.

use std::{
    collections::{BTreeSet, HashSet},
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::debug;

use super::{
    IN_MEMORY, Index, IndexError,
    build::{IndexBuilder, Sink},
    layout::MAX_ENTRIES,
    merge::{MergeError, MergePlan},
    table::{Bytes, Table},
};
use crate::{
    error::Result,
    format::index::IndexBody,
    id::{IndexId, PackId, RepoId},
};

/// Entries that are collected in memory before they become a table: about 120 MiB at the peak.
const BUILD_ENTRIES: usize = 1 << 20;
/// Most tables that stay apart: each costs a look in its filter at every look-up.
const MAX_TABLES: usize = 6;
/// Ends the name of a table file; another layout gets another one.
const SUFFIX: &str = "v1";
/// Ends the name of a file that is being written.
const TEMPORARY: &str = "tmp";
/// How often opening starts over after damage or a vanished file, before it does without cache.
const ATTEMPTS: usize = 3;

/// Opens the index with the help of a local cache.
#[derive(Debug)]
pub struct IndexCache;

impl IndexCache {
    /// The index over the `live` index objects, but for `swept` packs. What the cache under `dir`
    /// lacks comes from `load` and is put there; without `dir` everything stays in memory.
    ///
    /// # Errors
    /// Whatever `load` answers; [`IndexError::Build`] for index objects that no table can hold.
    /// A damaged, foreign or unwritable cache is no error.
    pub fn open(
        dir: Option<&Path>,
        repo: RepoId,
        live: &BTreeSet<IndexId>,
        swept: &HashSet<PackId>,
        load: &mut dyn FnMut(IndexId) -> Result<IndexBody>,
    ) -> Result<Index> {
        let mut folder = dir.and_then(|dir| Folder::create(dir, repo));
        let mut tables = Tables::default();
        if let Some(folder) = &folder {
            tables.0 = folder.tables();
        }
        for attempt in 1.. {
            tables.drop_unwanted(live);
            tables.load_missing(folder.as_ref(), live, load)?;
            let Some(used) = &folder else { break };
            if tables.merge(used, live) {
                break;
            }
            if attempt == ATTEMPTS {
                folder = None;
            }
        }
        let mut index = Index::default();
        index.sweep(swept);
        tables
            .0
            .sort_by_key(|table| std::cmp::Reverse(table.counts().entries));
        for table in tables.0 {
            index.attach(table, Some(live));
        }
        Ok(index)
    }
}

/// Removes a file of the cache. That it stays is no error: it is found out again.
pub(super) fn discard(file: &Path) {
    if let Err(error) = fs::remove_file(file)
        && error.kind() != io::ErrorKind::NotFound
    {
        debug!(file = %file.display(), %error, "cannot remove a file of the index cache");
    }
}

/// Tables on their way to become an index.
#[derive(Default)]
struct Tables(Vec<Table>);

impl Tables {
    /// Drops tables that cover nothing live that a larger one does not cover.
    fn drop_unwanted(&mut self, live: &BTreeSet<IndexId>) {
        self.0
            .sort_by_key(|table| std::cmp::Reverse(live_entries(table, live)));
        let mut covered = HashSet::new();
        self.0.retain(|table| {
            let mut wanted = false;
            for id in table.covered().filter(|id| live.contains(id)) {
                wanted |= covered.insert(id);
            }
            if !wanted && let Some(file) = table.file() {
                discard(file);
            }
            wanted
        });
    }

    /// Loads the live index objects that no table covers.
    fn load_missing(
        &mut self,
        folder: Option<&Folder>,
        live: &BTreeSet<IndexId>,
        load: &mut dyn FnMut(IndexId) -> Result<IndexBody>,
    ) -> Result<()> {
        let covered: HashSet<IndexId> = self.0.iter().flat_map(Table::covered).collect();
        let mut builder = IndexBuilder::default();
        for id in live.iter().filter(|id| !covered.contains(*id)) {
            builder.add(*id, &load(*id)?).map_err(IndexError::Build)?;
            if builder.len() >= BUILD_ENTRIES {
                self.0.push(save(folder, std::mem::take(&mut builder))?);
            }
        }
        if !builder.is_empty() {
            self.0.push(save(folder, builder)?);
        }
        Ok(())
    }

    /// Merges tables where that is due. False where a table turned out to be damaged; it is
    /// dropped by then.
    fn merge(&mut self, folder: &Folder, live: &BTreeSet<IndexId>) -> bool {
        let sizes: Vec<Size> = self.0.iter().map(|table| Size::of(table, live)).collect();
        let chosen = plan_merge(&sizes);
        let tables: Vec<&Table> = chosen.iter().filter_map(|at| self.0.get(*at)).collect();
        if tables.is_empty() {
            return true;
        }
        let merged = MergePlan::new(&tables, &|id| live.contains(id))
            .map_err(MergeError::from)
            .and_then(|plan| {
                let covered = plan.covered().to_vec();
                folder.save(&covered, |repo, sink| plan.write(&tables, repo, sink))
            });
        match merged {
            Ok(table) => {
                let kept = table.file().map(Path::to_path_buf);
                let old = std::mem::take(&mut self.0);
                for (at, old) in old.into_iter().enumerate() {
                    if !chosen.contains(&at) {
                        self.0.push(old);
                    } else if let Some(file) = old.file()
                        && Some(file) != kept.as_deref()
                    {
                        discard(file);
                    }
                }
                self.0.push(table);
                true
            }
            Err(MergeError::Write(error)) => {
                debug!(%error, "cannot merge tables of the index cache");
                true
            }
            Err(MergeError::Source(damage)) => {
                let error = damage.error;
                debug!(%error, "a table of the index cache is damaged");
                if let Some(at) = chosen.get(damage.source) {
                    let table = self.0.remove(*at);
                    table.file().into_iter().for_each(discard);
                }
                false
            }
        }
    }
}

/// Makes a table of what was collected: in the folder, or in memory where that fails.
fn save(folder: Option<&Folder>, mut builder: IndexBuilder) -> Result<Table, IndexError> {
    if let Some(folder) = folder {
        let mut covered = builder.covered().to_vec();
        covered.sort_unstable();
        let write = |repo, sink| builder.write(repo, sink).map_err(MergeError::from);
        match folder.save(&covered, write) {
            Ok(table) => return Ok(table),
            Err(MergeError::Write(error)) => debug!(%error, "cannot write the index cache"),
            Err(MergeError::Source(_)) => {}
        }
    }
    builder.table_in_memory(IN_MEMORY)
}

/// The folder of one repository.
struct Folder {
    path: PathBuf,
    repo: RepoId,
}

impl Folder {
    fn create(cache: &Path, repo: RepoId) -> Option<Self> {
        let path = cache.join(repo.to_hex()).join("index");
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
        if let Err(error) = made {
            debug!(folder = %path.display(), %error, "no index cache");
            return None;
        }
        Some(Self { path, repo })
    }

    /// All tables that can be used. The others are removed, and what crashes left.
    fn tables(&self) -> Vec<Table> {
        for _ in 0..ATTEMPTS {
            match self.list() {
                // Another process has merged tables meanwhile: look at its result.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    debug!(folder = %self.path.display(), %error, "cannot read the index cache");
                    break;
                }
                Ok(tables) => return tables,
            }
        }
        Vec::new()
    }

    fn list(&self) -> io::Result<Vec<Table>> {
        let mut tables = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|extension| extension.to_str());
            match extension {
                Some(SUFFIX) => tables.extend(self.table(path)?),
                Some(TEMPORARY) => remove_leftover(&path),
                _ => {}
            }
        }
        Ok(tables)
    }

    /// A table, if it is one of this repository.
    fn table(&self, path: PathBuf) -> io::Result<Option<Table>> {
        let bytes = Bytes::map(File::open(&path)?)?;
        match Table::open(bytes, self.repo, Some(path.clone())) {
            Ok(table) => Ok(Some(table)),
            Err(error) => {
                debug!(file = %path.display(), %error, "dropping a file of the index cache");
                discard(&path);
                Ok(None)
            }
        }
    }

    /// Writes a table that covers `covered` and opens it.
    fn save(
        &self,
        covered: &[IndexId],
        write: impl FnOnce(RepoId, Sink) -> Result<Sink, MergeError>,
    ) -> Result<Table, MergeError> {
        let mut hasher = blake3::Hasher::new();
        for id in covered {
            hasher.update(id.as_bytes());
        }
        let mut name = hasher.finalize().to_hex().to_string();
        name.truncate(32);
        let path = self.path.join(&name).with_extension(SUFFIX);
        let temporary = Temporary::create(&self.path, &name)?;
        let sink = write(self.repo, Sink::File(temporary.file.try_clone()?))?;
        fs::rename(&temporary.path, &path)?;
        let table = Table::open(sink.into_bytes()?, self.repo, Some(path.clone()));
        Ok(table.map_err(|error| {
            discard(&path);
            io::Error::new(io::ErrorKind::InvalidData, error)
        })?)
    }
}

/// A file that is being written; removed where it is not renamed. Its lock tells it from a file
/// that a crash left.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    fn create(folder: &Path, name: &str) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let path = folder.join(format!("{name}-{process}-{count}.{TEMPORARY}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let temporary = Self { path, file };
        temporary.file.try_lock()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        discard(&self.path);
    }
}

/// Removes a temporary file that no process is writing.
fn remove_leftover(path: &Path) {
    if let Ok(file) = File::open(path)
        && file.try_lock().is_ok()
    {
        discard(path);
    }
}

/// Entries of a table that live index objects name.
fn live_entries(table: &Table, live: &BTreeSet<IndexId>) -> u64 {
    if table.covered().all(|id| live.contains(&id)) {
        return u64::from(table.counts().entries);
    }
    (0..table.counts().packs)
        .filter_map(|number| table.pack(number))
        .filter(|pack| table.index_of(pack).is_some_and(|id| live.contains(&id)))
        .map(|pack| u64::from(pack.blobs))
        .sum()
}

/// Entries of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    /// Those that live index objects name.
    live: u64,
    /// All.
    all: u64,
}

impl Size {
    fn of(table: &Table, live: &BTreeSet<IndexId>) -> Self {
        Self {
            live: live_entries(table, live),
            all: u64::from(table.counts().entries),
        }
    }
}

/// Which tables to make one: the small ones up to the last that is at most twice as large as all
/// before it together, more where too many tables would be left, and up to one of which a quarter
/// is dead. So every entry is rewritten about as often as the index doubles.
fn plan_merge(sizes: &[Size]) -> Vec<usize> {
    let mut order: Vec<(Size, usize)> = sizes.iter().copied().zip(0..).collect();
    order.sort_by_key(|(size, at)| (size.live, *at));
    let mut take = 0;
    let mut before = 0;
    for (rank, (size, _)) in order.iter().enumerate() {
        let left = 1 + order.len() - rank;
        let close = rank > 0 && (size.live <= before * 2 || left > MAX_TABLES);
        let dead = (size.all - size.live) * 4 > size.all;
        before += size.live;
        if before > MAX_ENTRIES {
            break;
        }
        if close || dead {
            take = rank + 1;
        }
    }
    order.iter().take(take).map(|(_, at)| *at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::synthetic::Synthetic;

    const REPO: RepoId = RepoId::new([5; 16]);

    fn plan(sizes: &[(u64, u64)]) -> Vec<usize> {
        let sizes: Vec<Size> = sizes
            .iter()
            .map(|(live, dead)| Size {
                live: *live,
                all: live + dead,
            })
            .collect();
        plan_merge(&sizes)
    }

    #[test]
    fn tables_of_like_size_are_merged_and_a_large_one_is_left_alone() {
        assert_eq!(plan(&[]), []);
        assert_eq!(plan(&[(100, 0)]), []);
        assert_eq!(plan(&[(1000, 0), (100, 0)]), []);
        assert_eq!(plan(&[(1000, 0), (100, 0), (60, 0)]), [2, 1]);
        assert_eq!(plan(&[(1000, 0), (900, 0)]), [1, 0]);
        assert_eq!(plan(&[(1000, 0), (0, 0)]), []);
    }

    #[test]
    fn many_tables_are_merged_from_the_small_end() {
        let sizes: Vec<_> = (0..8).map(|power| (10_u64.pow(power), 0)).collect();
        assert_eq!(plan(&sizes), [0, 1, 2]);
        assert_eq!(plan(&sizes[..6]), []);
    }

    #[test]
    fn a_table_with_many_dead_entries_is_written_anew() {
        assert_eq!(plan(&[(100, 33)]), []);
        assert_eq!(plan(&[(100, 34)]), [0]);
        assert_eq!(plan(&[(100, 34), (3, 0)]), [1, 0]);
    }

    #[test]
    fn no_table_grows_beyond_what_numbers_can_count() {
        assert_eq!(plan(&[(MAX_ENTRIES, 0), (MAX_ENTRIES, 0)]), []);
        assert_eq!(plan(&[(MAX_ENTRIES, 0), (5, 0), (5, 0)]), [1, 2]);
    }

    /// A table of one index object with some thousand entries, not checked beyond the front; its
    /// byte `from_end` changed.
    fn late_table(folder: &Folder, object: u32, damage: Option<usize>) -> Table {
        let made_up = Synthetic {
            objects: 1,
            packs: 100,
            blobs: 20,
        };
        let id = Synthetic::index_id(object);
        let mut builder = IndexBuilder::default();
        builder.add(id, &made_up.body(id)).unwrap();
        let Sink::Memory(mut bytes) = builder.write(REPO, Sink::Memory(Vec::new())).unwrap() else {
            panic!("not in memory");
        };
        if let Some(from_end) = damage {
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
        }
        let file = folder.path.join(format!("{object}.{SUFFIX}"));
        fs::write(&file, &bytes).unwrap();
        Table::open_checking(Bytes::Owned(bytes), REPO, Some(file), 0).unwrap()
    }

    #[test]
    fn a_merge_that_meets_damage_drops_the_table_and_its_file_and_leaves_nothing_half_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path(), REPO).unwrap();
        // Entries and tails are 104 KB; order, filter and sums behind them not quite 16 KB.
        let damaged = late_table(&folder, 1, Some(60_000));
        let mut tables = Tables(vec![late_table(&folder, 0, None), damaged]);
        let live = [0, 1].map(Synthetic::index_id).into();
        assert!(!tables.merge(&folder, &live));
        let left: Vec<_> = tables.0.iter().flat_map(Table::covered).collect();
        assert_eq!(left, [Synthetic::index_id(0)]);
        let files = fs::read_dir(&folder.path).unwrap();
        let names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        assert_eq!(names, ["0.v1"]);
        assert!(tables.merge(&folder, &live));
    }

    #[test]
    fn a_merge_replaces_the_files_it_was_made_from() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::create(dir.path(), REPO).unwrap();
        let mut tables = Tables(
            (0..3)
                .map(|object| late_table(&folder, object, None))
                .collect(),
        );
        let live = [0, 1, 2].map(Synthetic::index_id).into();
        assert!(tables.merge(&folder, &live));
        assert_eq!(fs::read_dir(&folder.path).unwrap().count(), 1);
        assert_eq!(folder.tables().len(), 1);
        assert_eq!(
            tables
                .0
                .iter()
                .map(|table| table.counts().entries)
                .sum::<u32>(),
            6000
        );
    }
}
