//! How much the store holds.

use std::collections::BTreeMap;

use crate::{backend::ObjectKind, error::Result, prune::plan::Amount, repository::Repository};

/// Objects and bytes, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredSize {
    /// Per kind.
    pub kinds: BTreeMap<ObjectKind, Amount>,
}

impl StoredSize {
    /// Everything.
    #[must_use]
    pub fn total(&self) -> Amount {
        let mut total = Amount::default();
        for amount in self.kinds.values() {
            total.count += amount.count;
            total.bytes = total.bytes.saturating_add(amount.bytes);
        }
        total
    }
}

/// Adds up what the store shows.
///
/// # Errors
/// The store cannot be listed.
pub fn stored_size(repo: &Repository) -> Result<StoredSize> {
    let mut size = StoredSize::default();
    for kind in ObjectKind::ALL {
        let mut amount = Amount::default();
        repo.backend().list(kind, &mut |_, len| amount.add(len))?;
        size.kinds.insert(kind, amount);
    }
    Ok(size)
}
