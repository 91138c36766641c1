//! Which file an error is about.

use std::os::unix::ffi::OsStrExt as _;

use super::Error;

impl Error {
    /// The file concerned, where the error is about one, as the file system names it.
    #[must_use]
    pub fn source_path(&self) -> Option<&[u8]> {
        match self {
            Self::Source { path, .. }
            | Self::SourceXattr { path, .. }
            | Self::TargetMissing { path }
            | Self::SourceVanished { path }
            | Self::SourceChangedType { path }
            | Self::SourceChanged { path, .. }
            | Self::SourceMoved { path }
            | Self::SourceTooDeep { path, .. }
            | Self::SourceTooWide { path, .. }
            | Self::Database { path, .. }
            | Self::ActiveWal { path }
            | Self::DatabaseNotFound { path }
            | Self::DeviceIo { path, .. }
            | Self::DeviceResized { path, .. }
            | Self::DeviceMounted { path, .. }
            | Self::MarkerMismatch { path } => Some(path),
            Self::Restore { path, .. } | Self::ForeignLog { path } => {
                Some(path.as_os_str().as_bytes())
            }
            _ => None,
        }
    }

    /// The file or directory in a snapshot, where the error is about one; without a `/` before it.
    #[must_use]
    pub fn snapshot_path(&self) -> Option<&[u8]> {
        match self {
            Self::NotRestored { path, .. }
            | Self::DamagedDir { path, .. }
            | Self::WrongLength { path, .. }
            | Self::Differs { path, .. }
            | Self::NoLinkSource { path }
            | Self::PieceNotRestored { path, .. } => Some(path),
            _ => None,
        }
    }
}
