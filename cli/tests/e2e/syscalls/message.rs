//! Whether a person can understand from a message what failed.

use std::path::Path;

use super::bench::Failed;
use crate::disk::Effect;

/// Where the repository lies on the disk.
const REPOSITORY: &str = "/repo/";
/// Its folder of temporary files: what goes wrong there is told of the object that was to be made.
const TEMPORARY: &str = "tmp/";
/// The folders and files of a repository.
const OBJECTS: [&str; 13] = [
    "config", "keys", "keyring", "packs", "parity", "index", "snap", "log", "logseg", "audit",
    "hint", "reserve", "tmp",
];

/// Judges how a run failed on the disk at `at`, of which the paths in `struck` failed.
pub(super) fn judge<'a>(
    failed: &Failed,
    effect: Effect,
    at: &Path,
    mut struck: impl Iterator<Item = &'a str>,
) -> Result<(), &'static str> {
    let said = failed.message.to_lowercase();
    if failed.panicked {
        Err("panicked")
    } else if failed.code != 1 {
        Err("ended with another code than 1")
    } else if effect.words().is_none_or(|words| !said.contains(words)) {
        Err("the message does not say why")
    } else if !struck.any(|path| names(&failed.message, at.to_str().unwrap(), path)) {
        Err("the message does not say where")
    } else {
        Ok(())
    }
}

/// Whether a message names what is at `path` of the disk at `at`, or its folder.
fn names(message: &str, at: &str, path: &str) -> bool {
    if message.contains(&format!("{at}{path}")) {
        return true;
    }
    let Some(object) = path.strip_prefix(REPOSITORY) else {
        let (folder, _) = path.rsplit_once('/').unwrap_or_default();
        return message.contains(&format!("{at}{folder}"));
    };
    // Objects are told by their names, beside the place of the repository.
    if !message.contains(&format!("{at}/repo")) {
        return false;
    }
    if object.starts_with(TEMPORARY) {
        return OBJECTS.iter().any(|object| says(message, object));
    }
    let (folder, _) = object.rsplit_once('/').unwrap_or((object, ""));
    says(message, object) || says(message, folder)
}

/// Whether a message has a path of the repository, alone or at the beginning of a longer one.
fn says(message: &str, path: &str) -> bool {
    let mut words = message.split([' ', ':', ',', '`', '\'']);
    words.any(|word| {
        let rest = word.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '.']))
    })
}
