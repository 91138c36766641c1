//! Finding snapshots by what was typed: the engine does the finding, here is what people write and
//! what they are told. Also: objects by the beginning of their ids, and snapshots in groups.

use std::{collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt as _};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use strongroom_core::{
    error::Error as CoreError,
    format::snapshot::Snapshot,
    path::ArchivePath,
    snapshots::{self, LoadedSnapshot, SnapshotFilter, split_folder},
};
use strongroom_repo::{id::SnapshotId, repository::Repository};

use crate::{
    app::App,
    args::{FilterArgs, GroupKey},
    env,
    error::{Code, Hint},
    show::text,
};

/// A snapshot as typed: `ID`, `latest`, `latest~2`, each with `:FOLDER` or without.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `latest`, or the start of an id.
    pub(crate) id: String,
    /// The folder within; empty for the whole.
    pub(crate) folder: Vec<u8>,
}

impl Wanted {
    /// Divides what was typed at the first colon.
    pub(crate) fn parse(typed: &OsStr) -> Result<Self> {
        let (id, folder) = split_folder(typed.as_bytes());
        let id = std::str::from_utf8(id)
            .ok()
            .filter(|id| !id.is_empty())
            .ok_or_else(|| anyhow!("'{}' is not a snapshot ID", text::name(typed.as_bytes())))?;
        Ok(Self {
            id: id.to_owned(),
            folder: folder.to_vec(),
        })
    }
}

/// What the filters say.
pub(crate) fn filter(app: &App, args: &FilterArgs) -> Result<SnapshotFilter> {
    let mut hosts = args.host.clone();
    if hosts.is_empty() {
        hosts.extend(app.text_variable("HOST")?);
    }
    // An empty host stands for all: it takes back what the environment says.
    if hosts.iter().any(String::is_empty) {
        hosts.clear();
    }
    let mut paths = Vec::new();
    for path in &args.path {
        let absolute = if path.as_bytes().starts_with(b"/") {
            path.as_bytes().to_vec()
        } else {
            env::working_directory()?
                .join(path)
                .as_os_str()
                .as_bytes()
                .to_vec()
        };
        let parsed = ArchivePath::parse(&clean(&absolute))
            .with_context(|| format!("--path {} is no path", text::name(&absolute)))?;
        paths.push([b"/", parsed.as_bytes()].concat());
    }
    Ok(SnapshotFilter {
        hosts,
        tags: args.tag.iter().map(|list| tag_list(list)).collect(),
        paths,
    })
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
    parts.join(&b'/')
}

/// The tags of a list with commas.
pub(crate) fn tag_list(list: &str) -> Vec<String> {
    list.split(',')
        .map(str::trim)
        .filter(|tag| !tag.is_empty())
        .map(str::to_owned)
        .collect()
}

/// All snapshots that pass, oldest first, and the exit code: one that cannot be read is told of.
pub(crate) fn matching(
    app: &App,
    repo: &Repository,
    filter: &SnapshotFilter,
) -> (Vec<LoadedSnapshot>, Code) {
    let mut all = snapshots::load_all(repo);
    for (id, error) in &all.damaged {
        let words = crate::error::story(error);
        app.show
            .warn(&format!("cannot read snapshot {}: {words}", id.short()));
    }
    all.snapshots
        .retain(|loaded| filter.matches(&loaded.record));
    let code = if all.damaged.is_empty() {
        Code::Success
    } else {
        Code::Incomplete
    };
    (all.snapshots, code)
}

/// The one snapshot that is wanted; the filters say which one is the latest.
pub(crate) fn find(
    repo: &Repository,
    wanted: &str,
    filter: &SnapshotFilter,
) -> Result<LoadedSnapshot> {
    snapshots::find(repo, wanted, filter).map_err(with_hint)
}

/// The id of that snapshot; nothing else need be known of one that is named by its id.
pub(crate) fn find_id(repo: &Repository, wanted: &str) -> Result<SnapshotId> {
    snapshots::find_id(repo, wanted, &SnapshotFilter::default()).map_err(with_hint)
}

fn with_hint(error: CoreError) -> anyhow::Error {
    match error {
        CoreError::NoSnapshot { .. } => {
            Hint::of("`strongroom snapshots` shows all").on(error.into())
        }
        CoreError::AmbiguousSnapshot { .. } => Hint::of("give more digits").on(error.into()),
        error => error.into(),
    }
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
pub(crate) fn group(
    found: Vec<LoadedSnapshot>,
    keys: &[GroupKey],
) -> Vec<(GroupName, Vec<LoadedSnapshot>)> {
    let mut groups: BTreeMap<GroupName, Vec<LoadedSnapshot>> = BTreeMap::new();
    for found in found {
        let name = GroupName::of(&found.record, keys);
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
    use strongroom_core::format::snapshot::Summary;
    use strongroom_repo::{
        env::Timestamp,
        format::slot::Role,
        id::{BlobId, SlotId, SnapshotId},
        log::state::{Annotations, Place, SnapshotState},
    };

    use super::*;

    fn loaded(number: u8, host: &str) -> LoadedSnapshot {
        let time = Timestamp::default();
        LoadedSnapshot {
            id: SnapshotId::new([number; 32]),
            state: SnapshotState {
                seq: 1,
                time,
                previous_time: time,
                writer: SlotId::new([0; 32]),
                role: Role::Owner,
                place: Place::Own,
                base: 1,
            },
            annotations: Annotations::default(),
            record: Snapshot {
                time,
                tree: BlobId::new([0; 32]),
                paths: vec![b"/x".to_vec()],
                host: host.to_owned(),
                user: String::new(),
                uid: 0,
                gid: 0,
                tags: vec![],
                excludes: vec![],
                parent: None,
                program: String::new(),
                summary: Summary::default(),
                origin: None,
            },
        }
    }

    fn app<const N: usize>(pairs: [(&str, &str); N]) -> App {
        App::new(crate::args::GlobalArgs::default(), env::Vars::of(pairs))
    }

    #[test]
    fn an_empty_host_takes_back_what_the_environment_says() {
        let app = app([("STRONGROOM_HOST", "h")]);
        let hosts = |given: &[&str]| {
            let args = FilterArgs {
                host: given.iter().map(|host| (*host).to_owned()).collect(),
                ..FilterArgs::default()
            };
            filter(&app, &args).unwrap().hosts
        };
        assert_eq!(hosts(&[]), ["h"]);
        assert_eq!(hosts(&["g"]), ["g"]);
        assert!(hosts(&[""]).is_empty());
    }

    #[test]
    fn tags_are_divided_and_paths_made_clean() {
        let args = FilterArgs {
            tag: vec!["a, b".to_owned(), String::new()],
            path: vec!["/srv//x/../y/".into()],
            ..FilterArgs::default()
        };
        let filter = filter(&app([]), &args).unwrap();
        assert_eq!(filter.tags, [vec!["a".to_owned(), "b".to_owned()], vec![]]);
        assert_eq!(filter.paths, [b"/srv/y".to_vec()]);
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
        let all = vec![loaded(1, "b"), loaded(2, "a"), loaded(3, "b")];
        let groups = group(all, &[GroupKey::Host]);
        let sizes: Vec<_> = groups.iter().map(|(_, found)| found.len()).collect();
        assert_eq!(sizes, [1, 2]);
        assert_eq!(groups[0].0.host.as_deref(), Some("a"));
    }
}
