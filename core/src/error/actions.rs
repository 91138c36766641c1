//! What was being done when the system refused: the verbs of messages.

use std::fmt;

/// What was tried on a source file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SourceAction {
    /// Open it.
    Open,
    /// Read its size, times and owner.
    Stat,
    /// List a directory.
    List,
    /// Read content.
    Read,
    /// Ask where its holes are.
    FindHoles,
    /// Read where a symbolic link points.
    ReadLink,
    /// List its extended attributes.
    ListXattrs,
    /// Read its inode flags.
    ReadFlags,
}

impl fmt::Display for SourceAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Stat => "read the metadata of",
            Self::List => "list",
            Self::Read => "read",
            Self::FindHoles => "find the holes of",
            Self::ReadLink => "read the link",
            Self::ListXattrs => "list the attributes of",
            Self::ReadFlags => "read the inode flags of",
        })
    }
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
    /// Reading it back.
    Read,
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
            Self::Read => "read back",
            Self::Write => "write",
            Self::Name => "put in place",
            Self::Link => "link",
            Self::Remove => "remove",
        })
    }
}
