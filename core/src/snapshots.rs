//! Which snapshots there are, and which of them is meant: `latest`, `latest~2`, the beginning of an
//! id, filters for host, tags and paths, and the parent of a new backup. Records are read here;
//! what is inside a snapshot is `view`'s.
//!
//! Tags are those of the record as changed by the log's annotations.

use std::collections::BTreeSet;

use strongroom_repo::{
    env::Timestamp,
    id::SnapshotId,
    log::state::{Annotations, SnapshotState},
    repository::Repository,
};

use crate::{
    error::{Error, Result},
    format::snapshot::Snapshot,
};

/// A snapshot with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedSnapshot {
    /// Its id.
    pub id: SnapshotId,
    /// What the log says of it.
    pub state: SnapshotState,
    /// What was noted about it since; its tags are in the record already.
    pub annotations: Annotations,
    /// Its record, with tags as they are now.
    pub record: Snapshot,
}

/// All snapshots that could be read, oldest first, and what was wrong with the others.
#[derive(Debug, Default)]
pub struct LoadedSnapshots {
    /// The readable ones, by time.
    pub snapshots: Vec<LoadedSnapshot>,
    /// The others.
    pub damaged: Vec<(SnapshotId, Error)>,
}

/// Reads the records of all live snapshots. A damaged one is in the answer, not an error.
#[must_use]
pub fn load_all(repo: &Repository) -> LoadedSnapshots {
    let state = repo.state();
    let mut all = LoadedSnapshots::default();
    for (id, snapshot) in state.snapshots {
        let annotations = state.annotations.get(&id).cloned().unwrap_or_default();
        match read_record(repo, id, &annotations) {
            Ok(record) => all.snapshots.push(LoadedSnapshot {
                id,
                state: snapshot,
                annotations,
                record,
            }),
            Err(error) => all.damaged.push((id, error)),
        }
    }
    all.snapshots
        .sort_by_key(|loaded| (loaded.record.time, loaded.id));
    all
}

/// Reads one snapshot's record.
///
/// # Errors
/// There is no such snapshot, or its record is damaged.
pub fn load(repo: &Repository, id: SnapshotId) -> Result<LoadedSnapshot> {
    let mut state = repo.state();
    let Some(snapshot) = state.snapshots.remove(&id) else {
        return Err(Error::NoSnapshot {
            wanted: id.to_hex(),
        });
    };
    let annotations = state.annotations.remove(&id).unwrap_or_default();
    let record = read_record(repo, id, &annotations)?;
    Ok(LoadedSnapshot {
        id,
        state: snapshot,
        annotations,
        record,
    })
}

fn read_record(repo: &Repository, id: SnapshotId, annotations: &Annotations) -> Result<Snapshot> {
    let bytes = repo.load_snapshot(id)?;
    let mut record = Snapshot::decode(&bytes).map_err(|source| Error::DamagedSnapshot {
        snapshot: id,
        source,
    })?;
    record.tags = tags_now(&record.tags, annotations);
    Ok(record)
}

/// The tags of a record, less those that were removed, with those that were added; sorted.
fn tags_now(recorded: &[String], annotations: &Annotations) -> Vec<String> {
    let kept = recorded
        .iter()
        .filter(|tag| !annotations.removed_tags.contains(*tag));
    let now: BTreeSet<&String> = kept.chain(&annotations.added_tags).collect();
    now.into_iter().cloned().collect()
}

/// Which snapshots are of interest; an empty list asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFilter {
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// Any of these lists, of which all tags must be there. A list that is empty, or holds the
    /// empty text alone, stands for no tags at all.
    pub tags: Vec<Vec<String>>,
    /// All of these absolute paths were saved.
    pub paths: Vec<Vec<u8>>,
}

impl SnapshotFilter {
    /// Whether the record passes.
    #[must_use]
    pub fn matches(&self, record: &Snapshot) -> bool {
        let has_tags = |list: &Vec<String>| {
            if list.iter().all(String::is_empty) {
                record.tags.is_empty()
            } else {
                list.iter().all(|tag| record.tags.contains(tag))
            }
        };
        (self.hosts.is_empty() || self.hosts.contains(&record.host))
            && (self.tags.is_empty() || self.tags.iter().any(has_tags))
            && self.paths.iter().all(|path| record.paths.contains(path))
    }
}

/// The one snapshot that is meant: `latest` is the newest that passes the filter, `latest~N` the
/// one `N` before it, anything else the beginning of an id, for which the filter does not matter.
///
/// # Errors
/// None or several are meant, or the record is damaged. What the latest snapshot is cannot be said
/// while one that was added after it cannot be read: that one's error is the answer then.
pub fn find(repo: &Repository, wanted: &str, filter: &SnapshotFilter) -> Result<LoadedSnapshot> {
    let none = || Error::NoSnapshot {
        wanted: wanted.to_owned(),
    };
    if let Some(back) = steps_back(wanted) {
        let all = load_all(repo);
        let added = repo.snapshots();
        let found = all
            .snapshots
            .into_iter()
            .rev()
            .filter(|loaded| filter.matches(&loaded.record))
            .nth(back);
        let seq = found.as_ref().map_or(0, |found| found.state.seq);
        let is_later = |id: &SnapshotId| added.get(id).is_some_and(|state| state.seq > seq);
        return match all.damaged.into_iter().find(|(id, _)| is_later(id)) {
            Some((_, error)) => Err(error),
            None => found.ok_or_else(none),
        };
    }
    load(repo, find_by_prefix(repo, wanted)?)
}

/// The id of the snapshot that [`find`] finds; its record is read for `latest` alone, so that one
/// whose record is lost can still be named.
///
/// # Errors
/// As [`find`].
pub fn find_id(repo: &Repository, wanted: &str, filter: &SnapshotFilter) -> Result<SnapshotId> {
    match steps_back(wanted) {
        Some(_) => find(repo, wanted, filter).map(|found| found.id),
        None => find_by_prefix(repo, wanted),
    }
}

fn find_by_prefix(repo: &Repository, wanted: &str) -> Result<SnapshotId> {
    let none = || Error::NoSnapshot {
        wanted: wanted.to_owned(),
    };
    if wanted.is_empty() || !wanted.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(none());
    }
    let prefix = wanted.to_ascii_lowercase();
    let matching: Vec<_> = repo
        .snapshots()
        .into_keys()
        .filter(|id| id.to_hex().starts_with(&prefix))
        .collect();
    match matching.as_slice() {
        [only] => Ok(*only),
        [] => Err(none()),
        several => Err(Error::AmbiguousSnapshot {
            wanted: wanted.to_owned(),
            count: several.len(),
        }),
    }
}

/// How far `latest` or `latest~N` goes back; nothing for anything else.
fn steps_back(wanted: &str) -> Option<usize> {
    let rest = wanted.strip_prefix("latest")?;
    if rest.is_empty() {
        return Some(0);
    }
    rest.strip_prefix('~')?.parse().ok()
}

/// Divides `ID:sub/folder` at the first colon; the folder is empty where there is none.
#[must_use]
pub fn split_folder(wanted: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = wanted.splitn(2, |byte| *byte == b':');
    let id = parts.next().unwrap_or_default();
    (id, parts.next().unwrap_or_default())
}

/// What a parent must have in common with a new backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupBy {
    /// The host.
    pub host: bool,
    /// The paths.
    pub paths: bool,
    /// The tags.
    pub tags: bool,
}

impl Default for GroupBy {
    /// Host and paths.
    fn default() -> Self {
        Self {
            host: true,
            paths: true,
            tags: false,
        }
    }
}

/// The snapshot that a new backup is compared with: the newest one that is not younger than
/// `before` and that has host, paths and tags in common, as far as `group_by` asks for.
#[must_use]
pub fn latest_parent(
    repo: &Repository,
    host: &str,
    paths: &[Vec<u8>],
    tags: &[String],
    group_by: GroupBy,
    before: Timestamp,
) -> Option<LoadedSnapshot> {
    let filter = SnapshotFilter {
        hosts: if group_by.host {
            vec![host.to_owned()]
        } else {
            Vec::new()
        },
        tags: if group_by.tags {
            vec![tags.to_vec()]
        } else {
            Vec::new()
        },
        paths: if group_by.paths {
            paths.to_vec()
        } else {
            Vec::new()
        },
    };
    load_all(repo)
        .snapshots
        .into_iter()
        .rfind(|loaded| loaded.record.time <= before && filter.matches(&loaded.record))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use strongroom_repo::{
        backend::{MemBackend, ObjectName},
        id::BlobId,
        repository::NewSnapshot,
        writer::WriterOptions,
    };
    use tempfile::TempDir;

    use super::*;
    use crate::{
        archive::About,
        fixture::{back_up_as, create},
        format::snapshot::Summary,
    };

    fn record(host: &str, tags: &[&str], paths: &[&str]) -> Snapshot {
        Snapshot {
            time: Timestamp::default(),
            tree: BlobId::new([0; 32]),
            paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
            host: host.to_owned(),
            user: String::new(),
            uid: 0,
            gid: 0,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            excludes: Vec::new(),
            parent: None,
            program: String::new(),
            summary: Summary::default(),
            origin: None,
        }
    }

    #[test]
    fn hosts_and_lists_of_tags_are_alternatives_all_else_must_hold() {
        let filter = |hosts: &[&str], tags: &[&[&str]], paths: &[&str]| SnapshotFilter {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            tags: tags
                .iter()
                .map(|list| list.iter().map(|tag| (*tag).to_owned()).collect())
                .collect(),
            paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
        };
        let a = record("h", &["x", "y"], &["/1", "/2"]);
        let bare = record("h", &[], &["/1"]);
        assert!(filter(&[], &[], &[]).matches(&a));
        assert!(filter(&["g", "h"], &[&["x", "y"]], &["/2"]).matches(&a));
        assert!(filter(&[], &[&["z"], &["y"]], &[]).matches(&a));
        assert!(!filter(&["g"], &[], &[]).matches(&a));
        assert!(!filter(&[], &[&["x", "z"]], &[]).matches(&a));
        assert!(!filter(&[], &[], &["/1", "/3"]).matches(&a));
        assert!(!filter(&[], &[&[""]], &[]).matches(&a));
        assert!(filter(&[], &[&[""]], &[]).matches(&bare));
        assert!(filter(&[], &[&["x"], &[]], &[]).matches(&bare));
    }

    #[test]
    fn later_notes_change_the_tags_of_a_record() {
        let set = |tags: &[&str]| {
            tags.iter()
                .map(|tag| (*tag).to_owned())
                .collect::<BTreeSet<_>>()
        };
        let notes = Annotations {
            added_tags: set(&["new", "kept"]),
            removed_tags: set(&["gone"]),
            ..Annotations::default()
        };
        let recorded = ["gone", "kept", "old"].map(str::to_owned);
        assert_eq!(tags_now(&recorded, &notes), ["kept", "new", "old"]);
    }

    #[test]
    fn a_folder_stands_behind_the_first_colon() {
        assert_eq!(split_folder(b"latest"), (&b"latest"[..], &b""[..]));
        assert_eq!(split_folder(b"1a:/x:y"), (&b"1a"[..], &b"/x:y"[..]));
    }

    #[test]
    fn snapshots_are_found_by_age_and_by_the_beginning_of_an_id() {
        let from = TempDir::new().unwrap();
        let store = MemBackend::new();
        let repo = create(&store);
        let mut ids = Vec::new();
        for (secs, host) in [(30, "b"), (10, "a"), (20, "a")] {
            fs::write(from.path().join("file"), host).unwrap();
            let about = About {
                time: Some(Timestamp { secs, nanos: 0 }),
                host: host.to_owned(),
                ..About::default()
            };
            ids.push(back_up_as(&repo, from.path(), about).snapshot.unwrap());
        }
        let any = SnapshotFilter::default();
        let on_a = SnapshotFilter {
            hosts: vec!["a".to_owned()],
            ..any.clone()
        };
        let found = |wanted: &str, filter| find(&repo, wanted, filter).map(|found| found.id).ok();
        assert_eq!(found("latest", &any), Some(ids[0]));
        assert_eq!(found("latest~1", &any), Some(ids[2]));
        assert_eq!(found("latest", &on_a), Some(ids[2]));
        assert_eq!(found("latest~2", &on_a), None);
        assert_eq!(found("latest~x", &any), None);
        let hex = ids[0].to_hex();
        assert_eq!(found(&hex[..20], &on_a), Some(ids[0]));
        assert_eq!(found(&hex.to_uppercase(), &any), Some(ids[0]));
        for none in ["", "g", "0000000000000000000000"] {
            assert!(matches!(
                find(&repo, none, &any),
                Err(Error::NoSnapshot { .. })
            ));
        }
        let paths = load_all(&repo).snapshots[0].record.paths.clone();
        let parent = |host, paths: &[Vec<u8>], secs| {
            let before = Timestamp { secs, nanos: 0 };
            latest_parent(&repo, host, paths, &[], GroupBy::default(), before).map(|found| found.id)
        };
        assert_eq!(parent("a", &paths, 100), Some(ids[2]));
        assert_eq!(parent("a", &paths, 19), Some(ids[1]));
        assert_eq!(parent("a", &paths, 9), None);
        assert_eq!(parent("c", &paths, 100), None);
        assert_eq!(parent("a", &[b"/other".to_vec()], 100), None);
    }

    #[test]
    fn a_prefix_of_several_ids_is_ambiguous_and_a_record_of_junk_is_damaged() {
        let repo = create(&MemBackend::new());
        // Of seventeen ids two begin alike.
        let ids: Vec<SnapshotId> = (0..17_u8)
            .map(|n| {
                let base = repo.tail();
                let writer = repo.writer(WriterOptions::default());
                let record = [b'j', n];
                let new = NewSnapshot {
                    record: &record,
                    parent: None,
                    base,
                };
                let mut bench = writer.bench().unwrap();
                repo.commit(&writer, &mut bench, &new).unwrap()
            })
            .collect();
        let any = SnapshotFilter::default();
        let found = ids
            .iter()
            .map(|id| find_id(&repo, &id.to_hex()[..1], &any))
            .find_map(Result::err);
        assert!(
            matches!(found, Some(Error::AmbiguousSnapshot { count: 2.., .. })),
            "{found:?}"
        );
        let loaded = load(&repo, ids[0]).err();
        assert!(
            matches!(loaded, Some(Error::DamagedSnapshot { snapshot, .. }) if snapshot == ids[0]),
            "{loaded:?}"
        );
    }

    #[test]
    fn a_damaged_record_is_named_and_hides_no_other() {
        let from = TempDir::new().unwrap();
        let store = MemBackend::new();
        let repo = create(&store);
        let mut bad = None;
        for secs in 0..3 {
            let about = About {
                time: Some(Timestamp { secs, nanos: 0 }),
                ..About::default()
            };
            bad = back_up_as(&repo, from.path(), about).snapshot;
        }
        let bad = bad.unwrap();
        assert_eq!(load_all(&repo).snapshots.len(), 3);
        // Wherever its record is: behind its own name, or in an entry of the log.
        let mut hit = false;
        for (name, bytes) in store.objects() {
            let is_its_entry =
                matches!(name, ObjectName::Log(seq) if seq == repo.snapshots()[&bad].seq);
            if name == ObjectName::Snapshot(bad) || is_its_entry {
                let mut bytes = bytes.to_vec();
                let len = bytes.len();
                bytes[len / 4..].fill(0xa5);
                store.replace(name, bytes);
                hit = true;
            }
        }
        assert!(hit);
        let all = load_all(&repo);
        assert_eq!(all.snapshots.len(), 2);
        assert_eq!(all.damaged.len(), 1);
        assert_eq!(all.damaged[0].0, bad);
        let any = SnapshotFilter::default();
        assert_eq!(find_id(&repo, &bad.to_hex()[..30], &any).unwrap(), bad);
        // An older snapshot is not passed off as the latest.
        let found = find(&repo, "latest", &any);
        assert!(
            !matches!(&found, Ok(_) | Err(Error::NoSnapshot { .. })),
            "{found:?}"
        );
        let older = all.snapshots[0].id;
        assert_eq!(find(&repo, &older.to_hex(), &any).unwrap().id, older);
    }
}
