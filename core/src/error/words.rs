//! The words of errors: what was tried, by whom a thing is used, why a text has no meaning.

use std::{fmt, path::PathBuf};

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

/// Why a pattern has no meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// `!` with nothing after it.
    #[error("nothing follows the '!'")]
    EmptyNegation,
    /// `[` without its `]`.
    #[error("a '[' is not closed by a ']'")]
    UnclosedClass,
    /// `[]` or `[^]`.
    #[error("a '[...]' holds no character")]
    EmptyClass,
    /// A range inside `[...]` lacks an end.
    #[error("a range in '[...]' lacks its first or last character (escape '-' by '\\')")]
    BadRange,
    /// A backslash at the end of a component.
    #[error("nothing follows the last '\\'")]
    TrailingBackslash,
    /// A NUL byte, which no path can hold.
    #[error("it contains a NUL byte")]
    Nul,
    /// More than the limits of patterns allow.
    #[error("it is longer than {limit} bytes")]
    TooLong {
        /// Most bytes of a pattern.
        limit: usize,
    },
}

/// Why a list of files or patterns cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListError {
    /// A NUL-separated list whose last name is not ended by NUL: probably cut short.
    #[error("the last name is not ended by a NUL byte")]
    UnterminatedName,
    /// A NUL-separated list with a name of no bytes.
    #[error("it contains an empty name")]
    EmptyName,
    /// Text that claims to be UTF-16 and is not.
    #[error("it starts as UTF-16 but is not valid UTF-16")]
    BadUtf16,
    /// A NUL byte in a list of lines: it is probably not text.
    #[error("line {line} contains a NUL byte")]
    Nul {
        /// Line number, from 1.
        line: usize,
    },
    /// `${` without its `}`.
    #[error("line {line} has a '${{' without a '}}'")]
    UnclosedVariable {
        /// Line number, from 1.
        line: usize,
    },
}

/// Who uses a device or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InUse {
    /// It is mounted there.
    Mounted(PathBuf),
    /// This loop device rests on it.
    Loop(PathBuf),
    /// A program, swap, RAID or LVM has it, or a part of it.
    Held,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted(at) => write!(f, "mounted at {}", at.display()),
            Self::Loop(device) => write!(f, "{} rests on it", device.display()),
            Self::Held => f.write_str("mounted, swapped to, or part of another device or program"),
        }
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
    /// Waiting until it is on the disk.
    Sync,
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
            Self::Sync => "sync",
            Self::Link => "link",
            Self::Remove => "remove",
        })
    }
}
