//! What objects are called: [`ObjectKind`], [`ObjectName`], and their paths relative to the
//! repository. The only place that turns names into paths and back.

use std::fmt;

use crate::id::{IndexId, PackId, RunId, SlotObjectId, SnapshotId};

/// A kind of object; one folder each, but for the two copies of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// `config` and `config.2`.
    Config,
    /// `keys/<slot object>`.
    Key,
    /// `keyring/<n>`.
    Keyring,
    /// `packs/<aa>/<pack>`.
    Pack,
    /// `parity/<aa>/<pack>`.
    Parity,
    /// `index/<index>`.
    Index,
    /// `snap/<snapshot>`.
    Snapshot,
    /// `log/<20 digits>`.
    Log,
    /// `logseg/<20 digits>`.
    LogSegment,
    /// `audit/<20 digits>`.
    Audit,
    /// `hint/<run>`.
    Hint,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Key,
        Self::Keyring,
        Self::Pack,
        Self::Parity,
        Self::Index,
        Self::Snapshot,
        Self::Log,
        Self::LogSegment,
        Self::Audit,
        Self::Hint,
    ];

    /// The folder of this kind, relative to the repository; empty for the configuration.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::Config => "",
            Self::Key => "keys",
            Self::Keyring => "keyring",
            Self::Pack => "packs",
            Self::Parity => "parity",
            Self::Index => "index",
            Self::Snapshot => "snap",
            Self::Log => "log",
            Self::LogSegment => "logseg",
            Self::Audit => "audit",
            Self::Hint => "hint",
        }
    }

    /// Whether objects of this kind lie in 256 sub-folders named by the first byte.
    #[must_use]
    pub const fn is_fanned_out(self) -> bool {
        matches!(self, Self::Pack | Self::Parity)
    }
}

/// The name of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// The configuration: copy 1 or 2.
    Config(ConfigCopy),
    /// A slot.
    Key(SlotObjectId),
    /// A keyring, by number from 1.
    Keyring(u64),
    /// A pack.
    Pack(PackId),
    /// The parity of a pack.
    Parity(PackId),
    /// An index.
    Index(IndexId),
    /// A snapshot record.
    Snapshot(SnapshotId),
    /// A log entry, by sequence number from 1.
    Log(u64),
    /// A segment of 1024 log entries, by number from 1.
    LogSegment(u64),
    /// An audit record, by number from 1.
    Audit(u64),
    /// A run's sign of life.
    Hint(RunId),
}

/// Which of the two copies of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConfigCopy {
    /// `config`
    First,
    /// `config.2`
    Second,
}

impl ObjectName {
    /// The kind of this object.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Config(_) => ObjectKind::Config,
            Self::Key(_) => ObjectKind::Key,
            Self::Keyring(_) => ObjectKind::Keyring,
            Self::Pack(_) => ObjectKind::Pack,
            Self::Parity(_) => ObjectKind::Parity,
            Self::Index(_) => ObjectKind::Index,
            Self::Snapshot(_) => ObjectKind::Snapshot,
            Self::Log(_) => ObjectKind::Log,
            Self::LogSegment(_) => ObjectKind::LogSegment,
            Self::Audit(_) => ObjectKind::Audit,
            Self::Hint(_) => ObjectKind::Hint,
        }
    }

    /// The last part of the path: what the object is called inside its folder.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self {
            Self::Config(ConfigCopy::First) => "config".to_owned(),
            Self::Config(ConfigCopy::Second) => "config.2".to_owned(),
            Self::Key(id) => id.to_hex(),
            Self::Pack(id) | Self::Parity(id) => id.to_hex(),
            Self::Index(id) => id.to_hex(),
            Self::Snapshot(id) => id.to_hex(),
            Self::Hint(id) => id.to_hex(),
            Self::Keyring(n) | Self::Log(n) | Self::LogSegment(n) | Self::Audit(n) => {
                format!("{n:020}")
            }
        }
    }

    /// The path relative to the repository, with `/` between its parts.
    #[must_use]
    pub fn path(&self) -> String {
        let file = self.file_name();
        match self.kind() {
            ObjectKind::Config => file,
            kind if kind.is_fanned_out() => {
                let fan = file.get(..2).unwrap_or_default();
                format!("{}/{fan}/{file}", kind.folder())
            }
            kind => format!("{}/{file}", kind.folder()),
        }
    }

    /// The object of `kind` whose [`file_name`](Self::file_name) this is; `None` for a foreign
    /// file.
    #[must_use]
    pub fn parse(kind: ObjectKind, file_name: &str) -> Option<Self> {
        Some(match kind {
            ObjectKind::Config => match file_name {
                "config" => Self::Config(ConfigCopy::First),
                "config.2" => Self::Config(ConfigCopy::Second),
                _ => return None,
            },
            ObjectKind::Key => Self::Key(SlotObjectId::parse_hex(file_name)?),
            ObjectKind::Pack => Self::Pack(PackId::parse_hex(file_name)?),
            ObjectKind::Parity => Self::Parity(PackId::parse_hex(file_name)?),
            ObjectKind::Index => Self::Index(IndexId::parse_hex(file_name)?),
            ObjectKind::Snapshot => Self::Snapshot(SnapshotId::parse_hex(file_name)?),
            ObjectKind::Hint => Self::Hint(RunId::parse_hex(file_name)?),
            ObjectKind::Keyring => Self::Keyring(parse_number(file_name)?),
            ObjectKind::Log => Self::Log(parse_number(file_name)?),
            ObjectKind::LogSegment => Self::LogSegment(parse_number(file_name)?),
            ObjectKind::Audit => Self::Audit(parse_number(file_name)?),
        })
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}

/// Exactly twenty decimal digits.
fn parse_number(text: &str) -> Option<u64> {
    if text.len() != 20 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_from_its_file_name() {
        let names = [
            ObjectName::Config(ConfigCopy::First),
            ObjectName::Config(ConfigCopy::Second),
            ObjectName::Key(SlotObjectId::new([1; 32])),
            ObjectName::Keyring(7),
            ObjectName::Pack(PackId::new([0xab; 32])),
            ObjectName::Parity(PackId::new([2; 32])),
            ObjectName::Index(IndexId::new([3; 32])),
            ObjectName::Snapshot(SnapshotId::new([4; 32])),
            ObjectName::Log(u64::MAX),
            ObjectName::LogSegment(1),
            ObjectName::Audit(1),
            ObjectName::Hint(RunId::new([5; 16])),
        ];
        for name in names {
            assert_eq!(
                ObjectName::parse(name.kind(), &name.file_name()),
                Some(name)
            );
        }
        assert_eq!(names[4].path(), format!("packs/ab/{}", "ab".repeat(32)));
        assert_eq!(names[8].path(), "log/18446744073709551615");
    }

    #[test]
    fn foreign_files_have_no_name() {
        for text in [
            "",
            "1",
            "0000000000000000000x",
            "+0000000000000000001",
            "99999999999999999999",
        ] {
            assert_eq!(ObjectName::parse(ObjectKind::Log, text), None, "{text}");
        }
        assert_eq!(ObjectName::parse(ObjectKind::Pack, ".tmp-1"), None);
    }
}
