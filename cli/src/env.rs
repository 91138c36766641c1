//! The surroundings of the program: arguments, variables, folders, host and user. The only file
//! that asks the environment; everything else is handed what it needs, so that a test can run any
//! part of the program with variables of its own.
//!
//! A variable that is set but empty counts as not set.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use strongroom_core::source::Accounts;

/// What every variable of the program starts with.
const PREFIX: &str = "STRONGROOM_";

/// The variables that the program reads, by their full names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Vars(BTreeMap<OsString, OsString>);

impl Vars {
    /// The variables of this process.
    pub(crate) fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    /// Variables given one by one.
    #[cfg(test)]
    pub(crate) fn of<const N: usize>(pairs: [(&str, &str); N]) -> Self {
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .into(),
        )
    }

    /// A variable by its full name; `None` where it is not set or empty.
    pub(crate) fn plain(&self, name: &str) -> Option<&OsStr> {
        self.raw(name.as_bytes())
    }

    /// One of the program's own variables, named without its prefix.
    pub(crate) fn own(&self, name: &str) -> Option<&OsStr> {
        self.plain(&full_name(name))
    }

    /// A variable by the bytes of its name, as exclude files write it.
    pub(crate) fn raw(&self, name: &[u8]) -> Option<&OsStr> {
        self.0
            .get(OsStr::from_bytes(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    /// Where what this client remembers of repositories is kept.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        self.folder("STATE_DIR", "XDG_STATE_HOME", ".local/state")
    }

    /// Where what can be computed again is kept.
    pub(crate) fn cache_dir(&self) -> Option<PathBuf> {
        self.folder("CACHE_DIR", "XDG_CACHE_HOME", ".cache")
    }

    fn folder(&self, own: &str, base: &str, below_home: &str) -> Option<PathBuf> {
        if let Some(folder) = self.own(own) {
            return Some(folder.into());
        }
        let base = self
            .plain(base)
            .map(PathBuf::from)
            .filter(|base| base.is_absolute());
        let home = || Some(Path::new(self.plain("HOME")?).join(below_home));
        Some(base.or_else(home)?.join("strongroom"))
    }
}

/// The full name of one of the program's own variables.
pub(crate) fn full_name(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// The arguments, the program's name first.
pub(crate) fn arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}

/// The working directory.
///
/// # Errors
/// It was removed, or cannot be reached.
pub(crate) fn working_directory() -> std::io::Result<PathBuf> {
    std::env::current_dir()
}

/// The name of this machine.
pub(crate) fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Who runs the program.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// Name; the number where the system knows no name.
    pub(crate) name: String,
    /// Numeric id.
    pub(crate) uid: u32,
    /// Numeric id of the group.
    pub(crate) gid: u32,
}

impl User {
    /// The user of this process.
    pub(crate) fn current() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let gid = rustix::process::getgid().as_raw();
        let accounts = Accounts::load(Path::new("/etc/passwd"), Path::new("/etc/group"));
        let name = match accounts.user(uid) {
            b"" => uid.to_string(),
            name => String::from_utf8_lossy(name).into_owned(),
        };
        Self { name, uid, gid }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_not_set() {
        let vars = Vars::of([("STRONGROOM_REPOSITORY", ""), ("STRONGROOM_HOST", "h")]);
        assert_eq!(vars.own("REPOSITORY"), None);
        assert_eq!(vars.own("HOST"), Some(OsStr::new("h")));
    }

    #[test]
    fn folders_come_from_the_own_variable_then_the_base_folder_then_the_home_folder() {
        let all = Vars::of([
            ("STRONGROOM_CACHE_DIR", "/own"),
            ("XDG_CACHE_HOME", "/base"),
            ("HOME", "/home/a"),
        ]);
        assert_eq!(all.cache_dir(), Some("/own".into()));
        let base = Vars::of([("XDG_CACHE_HOME", "/base"), ("HOME", "/home/a")]);
        assert_eq!(base.cache_dir(), Some("/base/strongroom".into()));
        let relative = Vars::of([("XDG_STATE_HOME", "base"), ("HOME", "/home/a")]);
        let expected = "/home/a/.local/state/strongroom";
        assert_eq!(relative.state_dir(), Some(expected.into()));
        assert_eq!(Vars::default().state_dir(), None);
    }
}
