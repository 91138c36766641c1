//! Databases as the walk meets them: what is left out because a copy holds it, and which of those
//! that were asked for have been met.

use crate::{
    error::Error,
    source::{
        sqlite::{DatabaseOptions, is_database_at, owner, starts_with_magic},
        walk::{Entry, Walk},
    },
};

/// What the walking thread knows of databases.
pub(super) struct Databases<'a> {
    options: &'a DatabaseOptions,
    /// Files met in each directory along the current path: those of whose name the one met last
    /// begins.
    names: Vec<Vec<Vec<u8>>>,
    /// Which of those that are listed have been met.
    met: Vec<bool>,
}

impl<'a> Databases<'a> {
    pub(super) fn new(options: &'a DatabaseOptions) -> Self {
        Self {
            options,
            names: vec![Vec::new()],
            met: vec![false; options.listed.len()],
        }
    }

    /// A directory begins.
    pub(super) fn enter(&mut self) {
        self.names.push(Vec::new());
    }

    /// It ends.
    pub(super) fn leave(&mut self) {
        self.names.pop();
    }

    /// Whether the regular file that the walk found last is part of a database beside it of which a
    /// copy is saved.
    pub(super) fn leaves_out(&mut self, entry: &Entry, walk: &Walk) -> bool {
        let is_owned = || {
            let owner_path = owner(walk.source_path())?;
            let is_met = self
                .names
                .last()?
                .iter()
                .any(|met| Some(met.as_slice()) == owner(&entry.name));
            let is_copied = is_met && self.options.covers(owner_path);
            is_copied
                .then(|| starts_with_magic(entry, owner(entry.source_name())?).then_some(()))?
        };
        if is_owned().is_some() {
            return true;
        }
        if let Some(names) = self.names.last_mut() {
            while names
                .last()
                .is_some_and(|name| !entry.name.starts_with(name))
            {
                names.pop();
            }
            names.push(entry.name.clone());
        }
        false
    }

    /// Whether a problem is that a part of a database was listed and then gone: programs make and
    /// remove these all the time, and the copy of the database holds what was in them.
    pub(super) fn explains(&self, problem: &Error) -> bool {
        let Error::SourceVanished { path } = problem else {
            return false;
        };
        owner(path).is_some_and(|owner| {
            let is_listed = self.options.listed.iter().any(|listed| listed == owner);
            (self.options.all || is_listed) && is_database_at(owner)
        })
    }

    /// Whether the file at this path is to be copied if it is a database.
    pub(super) fn covers(&mut self, path: &[u8]) -> bool {
        let listed = self.options.listed.iter().position(|listed| listed == path);
        if let Some(met) = listed.and_then(|at| self.met.get_mut(at)) {
            *met = true;
        }
        listed.is_some() || self.options.all
    }

    /// What was asked for and not met.
    pub(super) fn missing(&self) -> impl Iterator<Item = Error> {
        let listed = self.options.listed.iter().zip(&self.met);
        listed
            .filter(|(_, met)| !**met)
            .map(|(path, _)| Error::DatabaseNotFound { path: path.clone() })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::ffi::OsStrExt as _};

    use super::*;

    #[test]
    fn a_part_of_a_database_may_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.db"), b"SQLite format 3\0 and so on").unwrap();
        fs::write(dir.path().join("notes"), b"no database, but a text").unwrap();
        let gone = |name: &str| Error::SourceVanished {
            path: dir.path().join(name).as_os_str().as_bytes().to_vec(),
        };
        let all = DatabaseOptions {
            all: true,
            ..DatabaseOptions::default()
        };
        let databases = Databases::new(&all);
        for part in ["a.db-journal", "a.db-wal", "a.db-shm"] {
            assert!(databases.explains(&gone(part)), "{part}");
        }
        for other in ["a.db", "b.db-wal", "notes-journal", "a.db-old"] {
            assert!(!databases.explains(&gone(other)), "{other}");
        }
        let none = DatabaseOptions::default();
        assert!(!Databases::new(&none).explains(&gone("a.db-wal")));
        let listed = DatabaseOptions {
            listed: vec![dir.path().join("a.db").as_os_str().as_bytes().to_vec()],
            ..DatabaseOptions::default()
        };
        assert!(Databases::new(&listed).explains(&gone("a.db-wal")));
    }
}
