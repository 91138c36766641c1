//! What a check found that is no damage: others may forget and prune while it goes on.

use std::collections::BTreeSet;

use strongroom_repo::{
    backend::ObjectName, check::Problem, error::Error as RepoError, id::BlobId,
    repository::Repository,
};

use super::{CheckReport, What};
use crate::reachable::TreeFault;

impl CheckReport {
    /// Takes back what others gave up while the check went on: a pack that was swept or an index
    /// that was dropped meanwhile need not be there, nor what only forgotten snapshots need.
    pub(super) fn excuse(&mut self, repo: &Repository) {
        if !self.has_errors() {
            return;
        }
        if let Err(error) = repo.refresh() {
            tracing::debug!(%error, "findings are told as they are");
            return;
        }
        let state = repo.state();
        let mut excused = BTreeSet::new();
        self.findings.retain_mut(|finding| {
            let all_gone = finding
                .affected
                .retain(|snapshot| state.snapshots.contains_key(snapshot));
            match &finding.what {
                What::Object(found) => match found.object {
                    Some(ObjectName::Pack(pack)) if state.swept.contains(&pack) => false,
                    Some(ObjectName::Pack(pack)) => match &found.what {
                        Problem::Base { base, .. } if !is_missed(repo, base) => {
                            excused.insert(pack);
                            false
                        }
                        _ => true,
                    },
                    Some(ObjectName::Index(index)) => state.indexes.contains_key(&index),
                    Some(ObjectName::Snapshot(_)) => !all_gone,
                    _ => true,
                },
                // For lost blobs every snapshot that needs them was looked up.
                What::Tree(TreeFault::Page { .. } | TreeFault::Missing { .. })
                | What::Snapshot(_)
                | What::Lost(_) => !all_gone,
                What::Tree(_) => true,
            }
        });
        // What is said of these packs rests on what was no longer there.
        self.objects
            .verdicts
            .retain(|pack, _| !excused.contains(pack));
    }
}

/// Whether a blob that could not be read is one that should be there, by the log as it is now: not
/// one that was moved meanwhile, nor one that nothing needs any more.
fn is_missed(repo: &Repository, blob: &BlobId) -> bool {
    let loaded = repo.reader().and_then(|mut reader| reader.load(blob));
    !matches!(loaded, Ok(_) | Err(RepoError::MissingBlob { .. }))
}
