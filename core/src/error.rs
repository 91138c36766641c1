//! What the engine answers when something cannot be done. Every variant names the file or object;
//! the cause stays apart as `source`. What a run can live with is not here: see
//! [`Problem`](crate::restore::apply::Problem).

use std::{ffi::OsString, fmt, io, path::PathBuf};

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- Restoring into a file system ----
    /// The file system refused an operation on a restored file.
    #[error("cannot {action} {path:?}")]
    Restore {
        /// What was tried.
        action: RestoreAction,
        /// On which file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A name that would leave its directory or cannot exist: empty, `.`, `..`, with `/` or NUL.
    #[error("{name:?} in {dir:?} is not a name that a file can have")]
    UnsafeName {
        /// The directory it was to be made in.
        dir: PathBuf,
        /// The name.
        name: OsString,
    },
    /// Something that is not a directory was to be restored where a directory with content is.
    #[error("a directory that is not empty is in the way at {path:?}")]
    DirectoryInTheWay {
        /// The directory.
        path: PathBuf,
    },
    /// A directory in use was moved away and another one put in its place.
    #[error("{path:?} is no longer the directory that was opened there")]
    DirectoryReplaced {
        /// The directory.
        path: PathBuf,
    },
    /// The first name of a hard-linked file is no longer the file that was restored.
    #[error("{path:?} is no longer the file that was restored there")]
    LinkSourceReplaced {
        /// The first name.
        path: PathBuf,
    },
    /// What was just made under a name was exchanged for something else, again and again.
    #[error("something keeps changing {path:?} while it is restored")]
    Unsettled {
        /// The file.
        path: PathBuf,
    },
    /// Content beyond the end that a file is to have.
    #[error("{len} bytes at {offset} lie outside of {path:?}, which has {size} bytes")]
    WriteOutside {
        /// The file.
        path: PathBuf,
        /// Its final length in bytes.
        size: u64,
        /// Where the content was to go.
        offset: u64,
        /// How many bytes it has.
        len: u64,
    },
    /// A regular file or a directory where only nodes without content are made.
    #[error("{path:?} has content and cannot be made as a bare node")]
    NotABareNode {
        /// The file.
        path: PathBuf,
    },
}

/// What a restore was doing when the file system refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreAction {
    /// Opening a directory or a file.
    Open,
    /// Making a file, directory or node.
    Create,
    /// Listing a directory.
    List,
    /// Asking for a file's state.
    Stat,
    /// Writing content.
    Write,
    /// Giving a file its name.
    Name,
    /// Making another name of a file.
    Link,
    /// Removing what is in the way.
    Remove,
}

impl fmt::Display for RestoreAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::List => "list",
            Self::Stat => "look at",
            Self::Write => "write",
            Self::Name => "put in place",
            Self::Link => "link",
            Self::Remove => "remove",
        })
    }
}
