//! The levels below the packs' content: the log from its first entry, both configurations, keys
//! and keyring, snapshot records, index objects, and whether every pack is there with the right
//! length.

use std::{collections::BTreeMap, sync::Arc};

use super::{CheckReport, Finding, Problem, Severity, Verdict};
use crate::{
    backend::{ConfigCopy, ObjectKind, ObjectName},
    error::{Error, Result},
    format::{
        frame::{self, FrameKind},
        keyring::Keyring,
    },
    id::PackId,
    limits::{MAX_KEYRING_LEN, MAX_META_LEN, MAX_SLOT_LEN},
    log::{
        Log, LogError, LogHeads,
        segment::{MAX_SEGMENT_LEN, Segment},
        state::{Place, State},
    },
    repository::Repository,
};

/// Reads the log anew, without what is cached or remembered: the object of every entry, and the
/// listing for holes.
pub(super) fn read_log(repo: &Repository) -> Result<Log, LogError> {
    let heads = LogHeads::open_every(Arc::clone(repo.backend()), repo.anchor())?;
    let mut log = heads.unlock(repo.roots().as_ref().clone(), repo.env().clone(), None)?;
    log.look_for_holes()?;
    Ok(log)
}

/// Verifies the log. Returns what it means, or what was known of it before.
pub(super) fn check_log(repo: &Repository, report: &mut CheckReport) -> State {
    let log = match read_log(repo) {
        Ok(log) => log,
        Err(error) => {
            report.findings.push(Finding {
                severity: Severity::Error,
                object: None,
                what: Problem::Log(error),
            });
            let state = repo.state();
            report.log_entries = state.head.seq;
            return state;
        }
    };
    for entry in log.damage() {
        let healable = entry.healed.is_some();
        let missing = entry.missing;
        let what = Problem::LogEntry { missing, healable };
        report.push(Severity::Warning, ObjectName::Log(entry.seq), what);
    }
    for ignored in &log.state().ignored {
        let what = Problem::Ignored(ignored.reason);
        report.push(Severity::Note, ObjectName::Log(ignored.seq), what);
    }
    report.log_entries = log.state().head.seq;
    log.state().clone()
}

/// Both copies of the configuration.
pub(super) fn check_config(repo: &Repository, report: &mut CheckReport) -> Result<()> {
    for copy in [ConfigCopy::First, ConfigCopy::Second] {
        let name = ObjectName::Config(copy);
        let limit = u64::from(MAX_META_LEN) * 4;
        let Some(object) = read(repo, name, limit, Severity::Warning, report)? else {
            continue;
        };
        match frame::decode(FrameKind::Config, &object) {
            Ok(framed) if framed.inner != repo.config_inner() => {
                report.push(Severity::Warning, name, Problem::Differs);
            }
            Ok(framed) if !framed.intact => report.push(Severity::Warning, name, Problem::Copy),
            Ok(_) => {}
            Err(source) => report.push(Severity::Warning, name, Problem::Damaged(source)),
        }
    }
    Ok(())
}

/// The slots, those that should be there, and the keyring that the log names.
pub(super) fn check_keys(repo: &Repository, state: &State, report: &mut CheckReport) -> Result<()> {
    let mut lost: Vec<_> = state.keys.slots.keys().copied().collect();
    for (object, slot) in repo.slots()? {
        let name = ObjectName::Key(object);
        match slot {
            Err(error) => report.push(Severity::Error, name, Problem::Unreadable(error)),
            Ok(slot) => {
                let id = slot.identity.public.slot_id();
                lost.retain(|live| *live != id);
                let limit = u64::from(MAX_SLOT_LEN) * 4;
                check_copies(repo, name, FrameKind::Slot, limit, report)?;
            }
        }
    }
    for slot in lost {
        report.findings.push(Finding {
            severity: Severity::Error,
            object: None,
            what: Problem::KeyLost(slot),
        });
    }
    let limit = u64::from(MAX_KEYRING_LEN) * 4;
    check_old_keyrings(repo, state.keys.keyring, limit, report)?;
    let name = ObjectName::Keyring(state.keys.keyring);
    let Some(object) = read(repo, name, limit, Severity::Error, report)? else {
        return Ok(());
    };
    match frame::decode(FrameKind::Keyring, &object) {
        Ok(framed) if !state.keys.names_keyring(framed.inner) => {
            report.push(Severity::Error, name, Problem::Differs);
        }
        Ok(framed) if !framed.intact => report.push(Severity::Warning, name, Problem::Copy),
        Ok(_) => {}
        Err(source) => report.push(Severity::Error, name, Problem::Damaged(source)),
    }
    Ok(())
}

/// Keyrings that the log no longer names. Nobody needs them: that one is gone is no finding, that
/// one rots is.
fn check_old_keyrings(
    repo: &Repository,
    current: u64,
    limit: u64,
    report: &mut CheckReport,
) -> Result<()> {
    let mut old = Vec::new();
    repo.backend().list(ObjectKind::Keyring, &mut |name, _| {
        if name != ObjectName::Keyring(current) {
            old.push(name);
        }
    })?;
    for name in old {
        let Some(object) = read(repo, name, limit, Severity::Warning, report)? else {
            continue;
        };
        match frame::decode(FrameKind::Keyring, &object) {
            Ok(framed) if !framed.intact => report.push(Severity::Warning, name, Problem::Copy),
            Ok(framed) => {
                let other = Keyring::decode(framed.inner)
                    .is_ok_and(|keyring| ObjectName::Keyring(keyring.number) != name);
                if other {
                    report.push(Severity::Warning, name, Problem::Differs);
                }
            }
            Err(source) => report.push(Severity::Warning, name, Problem::Damaged(source)),
        }
    }
    Ok(())
}

/// Segments of the log: twins of entries, which are verified by themselves. One that rots is done
/// without, and told.
pub(super) fn check_segments(repo: &Repository, report: &mut CheckReport) -> Result<()> {
    let mut segments = Vec::new();
    repo.backend()
        .list(ObjectKind::LogSegment, &mut |name, _| {
            if let ObjectName::LogSegment(number) = name {
                segments.push(number);
            }
        })?;
    for number in segments {
        let name = ObjectName::LogSegment(number);
        let limit = u64::from(MAX_SEGMENT_LEN);
        let Some(bytes) = read(repo, name, limit, Severity::Warning, report)? else {
            continue;
        };
        if let Err(source) = Segment::decode(number, bytes) {
            report.push(Severity::Warning, name, Problem::Damaged(source));
        }
    }
    Ok(())
}

/// The record of every live snapshot.
pub(super) fn check_snapshots(repo: &Repository, state: &State, report: &mut CheckReport) {
    for (id, snapshot) in &state.snapshots {
        let name = ObjectName::Snapshot(*id);
        let loaded = repo.load_record(*id);
        if let Err(error) = loaded {
            let gone = matches!(error, Error::NoSnapshot { .. });
            if !gone {
                report.push(Severity::Error, name, Problem::Unreadable(error));
            }
        } else if let Ok((_, Some(error))) = loaded {
            report.push(Severity::Warning, name, Problem::Record(error));
        } else if snapshot.place == Place::Own {
            let limit = u64::from(MAX_META_LEN) * 4;
            if let Err(error) = check_copies(repo, name, FrameKind::Snapshot, limit, report) {
                report.push(Severity::Error, name, Problem::Unreadable(error));
            }
        }
    }
}

/// Every live index object, and whether the local index has what it says.
pub(super) fn check_indexes(
    repo: &Repository,
    state: &State,
    report: &mut CheckReport,
) -> Result<()> {
    if let Err(error) = repo.refresh() {
        report.findings.push(Finding {
            severity: Severity::Error,
            object: None,
            what: Problem::Unreadable(error),
        });
    }
    let index = repo.index();
    index.verify()?;
    let swept = repo.state().swept;
    for (id, place) in &state.indexes {
        report.indexes += 1;
        let name = match place {
            Place::Own => ObjectName::Index(*id),
            Place::Inline(seq) => ObjectName::Log(*seq),
        };
        let body = match repo.index_body(*id, *place) {
            Ok(body) => body,
            Err(error) => {
                // Another client may have exchanged it since the log was read.
                if repo.state().indexes.contains_key(id) {
                    report.push(Severity::Error, name, Problem::Unreadable(error));
                }
                continue;
            }
        };
        let known = body.packs.iter().all(|group| {
            let blobs = u32::try_from(group.entries.len()).ok();
            swept.contains(&group.id)
                || index
                    .pack_by_id(&group.id)
                    .is_some_and(|pack| pack.len == group.len && Some(pack.blobs) == blobs)
        });
        if !known && repo.state().indexes.contains_key(id) {
            report.push(Severity::Error, name, Problem::Cache);
        }
    }
    Ok(())
}

/// Whether every pack is there. A listing is believed where it shows a pack with the right length;
/// what it does not show is asked for by name.
pub(super) fn check_packs(
    repo: &Repository,
    state: &State,
    report: &mut CheckReport,
) -> Result<()> {
    let mut listed: BTreeMap<PackId, u64> = BTreeMap::new();
    repo.backend().list(ObjectKind::Pack, &mut |name, len| {
        if let ObjectName::Pack(pack) = name {
            listed.insert(pack, len);
        }
    })?;
    for pack in repo.index().packs() {
        report.packs.add(pack.len);
        report.blobs += u64::from(pack.blobs);
        if listed.remove(&pack.id) == Some(pack.len) {
            continue;
        }
        let name = ObjectName::Pack(pack.id);
        match repo.backend().len(&name) {
            Ok(found) if found == pack.len => continue,
            Ok(found) => {
                let expected = pack.len;
                report.push(Severity::Error, name, Problem::Length { found, expected });
                report.verdicts.insert(pack.id, Verdict::Lost);
            }
            Err(error) if error.is_not_found() => {
                report.push(Severity::Error, name, Problem::Missing);
                report.verdicts.insert(pack.id, Verdict::Lost);
            }
            Err(error) => report.push(Severity::Error, name, Problem::Store(error)),
        }
        report.bad_packs.insert(pack.id);
    }
    for (pack, len) in listed {
        if !state.swept.contains(&pack) {
            report.unreferenced.add(len);
        }
    }
    Ok(())
}

/// Whether all copies inside an object are good that is known to be readable.
fn check_copies(
    repo: &Repository,
    name: ObjectName,
    kind: FrameKind,
    limit: u64,
    report: &mut CheckReport,
) -> Result<()> {
    if let Some(object) = read(repo, name, limit, Severity::Error, report)?
        && let Ok(framed) = frame::decode(kind, &object)
        && !framed.intact
    {
        report.push(Severity::Warning, name, Problem::Copy);
    }
    Ok(())
}

/// Reads an object that should be there; notes where it is not.
fn read(
    repo: &Repository,
    name: ObjectName,
    limit: u64,
    severity: Severity,
    report: &mut CheckReport,
) -> Result<Option<Vec<u8>>> {
    match repo.backend().read_all(&name, limit) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => {
            report.push(severity, name, Problem::Missing);
            Ok(None)
        }
        Err(error) => {
            report.push(severity, name, Problem::Store(error));
            Ok(None)
        }
    }
}
