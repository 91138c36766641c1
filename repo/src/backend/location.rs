//! Where a repository is, as people write it: `/backup`, `local:/backup`, and the schemes of
//! stores to come, which are refused by name rather than taken for a folder. Messages show the
//! scheme alone, for what follows it may hold a password.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use super::{Backend, BackendError, LocalBackend, LocalOptions};

/// Schemes of stores that are planned: an honest "not yet" for each.
const RESERVED_SCHEMES: [&str; 13] = [
    "azure", "b2", "file", "gs", "http", "https", "rclone", "rest", "s3", "sftp", "ssh", "swift",
    "webdav",
];

/// The place of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A folder of this machine.
    Local(PathBuf),
}

/// A location that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Nothing was given.
    #[error("the repository location is empty")]
    Empty,
    /// A store that does not exist yet.
    #[error("repositories at \"{scheme}:\" are not supported yet; use a local folder")]
    NotSupported {
        /// The part before the colon.
        scheme: String,
    },
    /// A colon before the first slash, and what stands before it is no scheme.
    #[error("\"{scheme}:\" is no kind of repository; for a folder of that name write local:PATH")]
    UnknownScheme {
        /// The part before the colon.
        scheme: String,
    },
}

impl Location {
    /// Parses what a person wrote.
    ///
    /// ```
    /// use std::ffi::OsStr;
    /// use strongroom_repo::backend::{Location, LocationError};
    ///
    /// let parsed = Location::parse(OsStr::new("local:a:b"));
    /// assert_eq!(parsed, Ok(Location::Local("a:b".into())));
    /// let scheme = "s3".to_owned();
    /// let refused = Location::parse(OsStr::new("s3:https://key:secret@host/bucket"));
    /// assert_eq!(refused, Err(LocationError::NotSupported { scheme }));
    /// ```
    ///
    /// # Errors
    /// The location is empty, or its scheme is not supported.
    pub fn parse(text: &OsStr) -> Result<Self, LocationError> {
        let bytes = text.as_bytes();
        let path = match split_scheme(bytes) {
            None => bytes,
            Some((b"local", path)) => path,
            Some((scheme, _)) => return Err(refuse(scheme)),
        };
        if path.is_empty() {
            return Err(LocationError::Empty);
        }
        Ok(Self::Local(OsString::from_vec(path.to_vec()).into()))
    }

    /// Makes an empty place for a new repository, without its layout.
    ///
    /// # Errors
    /// The place cannot be made or opened.
    pub fn create(&self, options: LocalOptions) -> Result<Box<dyn Backend>, BackendError> {
        match self {
            Self::Local(path) => Ok(Box::new(LocalBackend::create(path, options)?)),
        }
    }

    /// Opens the store. Whether a repository is there is told by reading its configuration.
    ///
    /// # Errors
    /// There is no such place, or it cannot be opened.
    pub fn open(&self, options: LocalOptions) -> Result<Box<dyn Backend>, BackendError> {
        match self {
            Self::Local(path) => Ok(Box::new(LocalBackend::open(path, options)?)),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The parts before and after a colon that stands before the first slash.
fn split_scheme(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|&byte| byte == b':' || byte == b'/')?;
    let (scheme, rest) = text.split_at_checked(at)?;
    Some((scheme, rest.strip_prefix(b":")?))
}

fn refuse(scheme: &[u8]) -> LocationError {
    let scheme = String::from_utf8_lossy(scheme).into_owned();
    if RESERVED_SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) {
        LocationError::NotSupported { scheme }
    } else {
        LocationError::UnknownScheme { scheme }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Location, LocationError> {
        Location::parse(OsStr::new(text))
    }

    #[test]
    fn a_path_is_a_local_folder() {
        for path in ["/backup", "backup", "./a:b", "/a:b/c", "../x"] {
            assert_eq!(parse(path), Ok(Location::Local(path.into())));
            assert_eq!(
                parse(&format!("local:{path}")),
                Ok(Location::Local(path.into()))
            );
            assert_eq!(Location::Local(path.into()).to_string(), path);
        }
        let odd = OsStr::from_bytes(b"/back\xffup");
        assert_eq!(Location::parse(odd), Ok(Location::Local(odd.into())));
    }

    #[test]
    fn nothing_is_no_location() {
        assert_eq!(parse(""), Err(LocationError::Empty));
        assert_eq!(parse("local:"), Err(LocationError::Empty));
    }

    #[test]
    fn a_planned_scheme_is_refused_by_name_and_its_secret_is_not_shown() {
        for scheme in RESERVED_SCHEMES {
            let error = parse(&format!("{scheme}://user:hunter2@host/path")).unwrap_err();
            let scheme = scheme.to_owned();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert_eq!(error, LocationError::NotSupported { scheme });
        }
    }

    #[test]
    fn an_unknown_scheme_is_not_taken_for_a_folder() {
        for scheme in ["foo", "user@host", "C", ""] {
            let error = parse(&format!("{scheme}:/x")).unwrap_err();
            let scheme = scheme.to_owned();
            assert_eq!(error, LocationError::UnknownScheme { scheme });
        }
    }
}
