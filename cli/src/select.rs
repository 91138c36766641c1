//! Finding snapshots by what was typed: `latest`, the start of an id, `ID:sub/folder`, and the
//! filters for host, tags and paths. Pure but for [`load_all`], which reads them.

use std::{collections::BTreeMap, os::unix::ffi::OsStrExt as _};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use strongroom_core::format::snapshot::Snapshot;
use strongroom_repo::{id::SnapshotId, repository::Repository};

use crate::{
    app::App,
    args::{FilterArgs, GroupKey},
    error::Hint,
};

/// A snapshot with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The id.
    pub(crate) id: SnapshotId,
    /// The record.
    pub(crate) snapshot: Snapshot,
}

/// A snapshot as typed: `ID`, `latest`, `ID:sub/folder`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `latest`, or the start of an id.
    pub(crate) id: String,
    /// The folder within; empty for the whole.
    pub(crate) folder: Vec<u8>,
}

impl Wanted {
    /// Divides what was typed at the first colon.
    pub(crate) fn parse(text: &std::ffi::OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        let (id, folder) = match bytes.iter().position(|byte| *byte == b':') {
            Some(at) => {
                let (id, rest) = bytes.split_at(at);
                (id, rest.get(1..).unwrap_or_default())
            }
            None => (bytes, &[][..]),
        };
        let id = std::str::from_utf8(id)
            .ok()
            .filter(|id| !id.is_empty())
            .ok_or_else(|| anyhow!("{} is not a snapshot ID", text.display()))?;
        Ok(Self {
            id: id.to_owned(),
            folder: folder.to_vec(),
        })
    }
}

/// What the filters say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    hosts: Vec<String>,
    tags: Vec<Vec<String>>,
    paths: Vec<Vec<u8>>,
}

impl Filter {
    /// From what was typed and the environment.
    pub(crate) fn new(app: &App, args: &FilterArgs) -> Result<Self> {
        let mut hosts = args.host.clone();
        if hosts.is_empty() {
            hosts.extend(app.text_variable("HOST")?);
        }
        // An empty host stands for all: it takes back what the environment says.
        if hosts.iter().any(String::is_empty) {
            hosts.clear();
        }
        let base = crate::env::working_directory();
        let absolute = |path: &std::ffi::OsString| match &base {
            Ok(base) => base.join(path).into_os_string(),
            Err(_) => path.clone(),
        };
        Ok(Self {
            hosts,
            tags: args.tag.iter().map(|list| tag_list(list)).collect(),
            paths: args
                .path
                .iter()
                .map(|path| clean(absolute(path).as_bytes()))
                .collect(),
        })
    }

    /// Whether the snapshot passes.
    pub(crate) fn matches(&self, snapshot: &Snapshot) -> bool {
        let host = self.hosts.is_empty() || self.hosts.contains(&snapshot.host);
        let tags = self.tags.is_empty()
            || self.tags.iter().any(|list| {
                if list.is_empty() {
                    snapshot.tags.is_empty()
                } else {
                    list.iter().all(|tag| snapshot.tags.contains(tag))
                }
            });
        let paths = self.paths.iter().all(|path| snapshot.paths.contains(path));
        host && tags && paths
    }
}

/// The tags of a list with commas.
pub(crate) fn tag_list(list: &str) -> Vec<String> {
    list.split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A path without `.`, repeated and trailing slashes; `..` is resolved by name.
fn clean(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let mut out = Vec::new();
    for part in &parts {
        out.push(b'/');
        out.extend_from_slice(part);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// All snapshots, oldest first.
pub(crate) fn load_all(repo: &Repository) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    for id in repo.snapshots().into_keys() {
        all.push(load(repo, id)?);
    }
    all.sort_by_key(|found| (found.snapshot.time, found.id));
    Ok(all)
}

/// One snapshot.
pub(crate) fn load(repo: &Repository, id: SnapshotId) -> Result<Found> {
    let what = || format!("cannot read snapshot {}", id.short());
    let record = repo.load_snapshot(id).with_context(what)?;
    let snapshot = Snapshot::decode(&record).with_context(what)?;
    Ok(Found { id, snapshot })
}

/// The one snapshot that is wanted; the filters say which one is the latest.
pub(crate) fn find(repo: &Repository, wanted: &str, filter: &Filter) -> Result<Found> {
    if wanted != "latest" {
        return load(repo, resolve(repo, wanted)?);
    }
    load_all(repo)?
        .into_iter()
        .rfind(|found| filter.matches(&found.snapshot))
        .ok_or_else(|| {
            Hint::of("`strongroom snapshots` shows all").on(anyhow!("no snapshot matches"))
        })
}

/// The id that begins with what was typed.
pub(crate) fn resolve(repo: &Repository, prefix: &str) -> Result<SnapshotId> {
    one_of(
        "snapshot",
        prefix,
        repo.snapshots().into_keys(),
        SnapshotId::to_hex,
    )
}

/// The one of `ids` that begins with `prefix`.
pub(crate) fn one_of<T: Copy>(
    what: &str,
    prefix: &str,
    ids: impl Iterator<Item = T>,
    hex: impl Fn(T) -> String,
) -> Result<T> {
    ensure!(
        !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{prefix:?} is not a {what} ID"
    );
    let prefix = prefix.to_ascii_lowercase();
    let mut matches = ids.filter(|id| hex(*id).starts_with(&prefix));
    match (matches.next(), matches.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => bail!("there is no {what} {prefix}"),
        (Some(_), Some(_)) => bail!("several {what} IDs begin with {prefix}: give more digits"),
    }
}

/// Snapshots in groups of the same host, paths or tags, each in the order given.
pub(crate) fn group(found: Vec<Found>, keys: &[GroupKey]) -> Vec<(GroupName, Vec<Found>)> {
    let mut groups: BTreeMap<GroupName, Vec<Found>> = BTreeMap::new();
    for found in found {
        let name = GroupName::of(&found.snapshot, keys);
        groups.entry(name).or_default().push(found);
    }
    groups.into_iter().collect()
}

/// What the snapshots of a group have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupName {
    /// The host, where grouped by it.
    pub(crate) host: Option<String>,
    /// The paths, sorted, where grouped by them.
    pub(crate) paths: Option<Vec<Vec<u8>>>,
    /// The tags, where grouped by them.
    pub(crate) tags: Option<Vec<String>>,
}

impl GroupName {
    fn of(snapshot: &Snapshot, keys: &[GroupKey]) -> Self {
        let mut name = Self::default();
        for key in keys {
            match key {
                GroupKey::Host => name.host = Some(snapshot.host.clone()),
                GroupKey::Paths => {
                    let mut paths = snapshot.paths.clone();
                    paths.sort();
                    name.paths = Some(paths);
                }
                GroupKey::Tags => name.tags = Some(snapshot.tags.clone()),
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use strongroom_core::format::snapshot::Summary;
    use strongroom_repo::{env::Timestamp, id::BlobId};

    use super::*;

    fn snapshot(host: &str, tags: &[&str], paths: &[&str]) -> Snapshot {
        Snapshot {
            time: Timestamp::default(),
            tree: BlobId::new([0; 32]),
            paths: paths.iter().map(|path| path.as_bytes().to_vec()).collect(),
            host: host.to_owned(),
            user: String::new(),
            uid: 0,
            gid: 0,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            excludes: vec![],
            parent: None,
            program: String::new(),
            summary: Summary::default(),
            origin: None,
        }
    }

    fn filter(hosts: &[&str], tags: &[&str], paths: &[&str]) -> Filter {
        Filter {
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            tags: tags.iter().map(|list| tag_list(list)).collect(),
            paths: paths.iter().map(|path| clean(path.as_bytes())).collect(),
        }
    }

    #[test]
    fn hosts_are_alternatives_tags_of_a_list_and_paths_must_all_be_there() {
        let s = snapshot("h", &["a", "b"], &["/x", "/y"]);
        assert!(filter(&[], &[], &[]).matches(&s));
        assert!(filter(&["g", "h"], &[], &[]).matches(&s));
        assert!(!filter(&["g"], &[], &[]).matches(&s));
        assert!(filter(&[], &["a,b"], &[]).matches(&s));
        assert!(!filter(&[], &["a,c"], &[]).matches(&s));
        assert!(filter(&[], &["c", "a"], &[]).matches(&s));
        assert!(!filter(&[], &[""], &[]).matches(&s));
        assert!(filter(&[], &[""], &[]).matches(&snapshot("h", &[], &[])));
        assert!(filter(&[], &[], &["/y/", "/x"]).matches(&s));
        assert!(!filter(&[], &[], &["/y", "/z"]).matches(&s));
    }

    #[test]
    fn a_snapshot_is_typed_with_its_folder_behind_a_colon() {
        let parse = |text: &str| Wanted::parse(OsStr::new(text)).ok();
        let wanted = |id: &str, folder: &str| {
            Some(Wanted {
                id: id.to_owned(),
                folder: folder.as_bytes().to_vec(),
            })
        };
        assert_eq!(parse("latest"), wanted("latest", ""));
        assert_eq!(parse("12ab:/a:b"), wanted("12ab", "/a:b"));
        assert_eq!(parse(":x"), None);
    }

    #[test]
    fn the_start_of_an_id_must_be_clear() {
        let ids = ["ab12", "ab34"];
        let find = |prefix| one_of("pack", prefix, ids.into_iter(), str::to_owned);
        assert_eq!(find("ab1").ok(), Some("ab12"));
        assert_eq!(find("AB3").ok(), Some("ab34"));
        assert_eq!(
            find("ab").unwrap_err().to_string(),
            "several pack IDs begin with ab: give more digits"
        );
        assert!(find("cd").is_err());
        assert!(find("").is_err());
        assert!(find("x/y").is_err());
    }

    #[test]
    fn groups_have_the_same_host_and_paths() {
        let found = |n: u8, host: &str| Found {
            id: SnapshotId::new([n; 32]),
            snapshot: snapshot(host, &[], &["/x"]),
        };
        let all = vec![found(1, "b"), found(2, "a"), found(3, "b")];
        let groups = group(all, &[GroupKey::Host]);
        let sizes: Vec<_> = groups.iter().map(|(_, found)| found.len()).collect();
        assert_eq!(sizes, [1, 2]);
        assert_eq!(groups[0].0.host.as_deref(), Some("a"));
    }
}
