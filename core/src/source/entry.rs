//! What the walk hands on of everything it meets.

use std::{os::fd::OwnedFd, sync::Arc};

use super::{
    device::SourceDevice,
    meta::{Stat, link_id},
};
use crate::node::LinkId;

/// An entry of a directory, as one system call tells it, with what it takes to open it later: it
/// may be sent to another thread and opened there, long after the walk has gone on. It keeps its
/// directory open until it is dropped: queues of entries need a bound, and a stack of the entered
/// directories should hold nodes, not entries.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the snapshot.
    pub name: Vec<u8>,
    /// What it was when the walk saw it.
    pub stat: Stat,
    /// A small number for its device, in the order in which the walk met them.
    pub(super) device_ordinal: u32,
    /// The directory that holds it.
    pub(super) dir: Arc<OwnedFd>,
    /// The entry itself, if it is a directory that could be opened.
    pub(super) opened: Option<Arc<OwnedFd>>,
    /// `opened` holds only the place: the directory may be passed but not listed.
    pub(super) passage: bool,
    /// It is reached by following a symbolic link on the way to a target.
    pub(super) followed: bool,
    /// The entry itself, if it is a block device whose content is saved as that of a file.
    pub(super) device: Option<Arc<SourceDevice>>,
    /// Its name in the source, where that differs.
    pub(super) real_name: Option<Box<[u8]>>,
}

impl Entry {
    /// Which file this is another name of, if it has several.
    #[must_use]
    pub fn link(&self) -> Option<LinkId> {
        link_id(&self.stat, self.device_ordinal)
    }

    /// Whether it is a block device whose content is saved: what its times say counts for nothing.
    #[must_use]
    pub fn is_device(&self) -> bool {
        self.device.is_some()
    }

    pub(crate) fn source_name(&self) -> &[u8] {
        self.real_name.as_deref().unwrap_or(&self.name)
    }
}
