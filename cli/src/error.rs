//! Failures as people and scripts meet them: what failed, on what, why, what to do, and with which
//! exit code. What turns a chain of errors into text is here; others show it through [`Failure`],
//! [`story`] or [`message`].
//!
//! Commands return `anyhow` errors: the engine's typed ones with words in front of them, and a
//! [`Hint`] marks where a command knows more than the error itself.

use std::{fmt, io, process::ExitCode};

use strongroom_core::{error::Error as CoreError, source::sqlite::DatabaseError};
use strongroom_repo::{
    backend::{BackendErrorKind, ObjectKind},
    error::Error as RepoError,
    log::LogError,
};

use crate::{
    child::ProgramError,
    show::{json, text},
};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// Done.
    Success = 0,
    /// Failed.
    Failed = 1,
    /// A bug of the program.
    Internal = 2,
    /// Done, but something could not be read or removed.
    Incomplete = 3,
    /// There is no repository.
    NoRepository = 10,
    /// Others kept the repository busy.
    Busy = 11,
    /// No key opens with the password.
    WrongPassword = 12,
    /// Somebody stopped it.
    Cancelled = 130,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Somebody stopped the program.
#[derive(Clone, Copy, Debug, Default, thiserror::Error)]
#[error("cancelled{}{kept}", if .kept.is_empty() { "" } else { "; " })]
pub(crate) struct Cancelled {
    kept: &'static str,
}

impl Cancelled {
    /// With what became of the work so far.
    pub(crate) const fn and(kept: &'static str) -> Self {
        Self { kept }
    }
}

/// What the person can do about an error: stands in front of the error in its chain.
#[derive(Debug)]
pub(crate) struct Hint(String);

impl Hint {
    /// A hint.
    pub(crate) fn of(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The error with the hint attached.
    pub(crate) fn on(self, error: anyhow::Error) -> anyhow::Error {
        error.context(self)
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A failure, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: Code,
    /// What failed, on what, and why, in one line.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// Nobody reads the output any more: nothing is said.
    pub(crate) silent: bool,
}

impl Failure {
    /// Judges an error.
    pub(crate) fn judge(error: &anyhow::Error) -> Self {
        let given = error.downcast_ref::<Hint>().map(|hint| hint.0.clone());
        let (code, usual) = error
            .chain()
            .find_map(classify)
            .unwrap_or((Code::Failed, None));
        // The hint is a link of the chain, but no part of the story.
        let story = error
            .chain()
            .map(ToString::to_string)
            .filter(|words| Some(words) != given.as_ref());
        Self {
            code,
            message: message(story),
            hint: given.or_else(|| usual.map(str::to_owned)),
            silent: error
                .chain()
                .filter_map(|cause| cause.downcast_ref::<StdoutError>())
                .any(|error| error.0.kind() == io::ErrorKind::BrokenPipe),
        }
    }

    /// What was typed cannot be understood.
    pub(crate) fn usage(message: String) -> Self {
        Self {
            code: Code::Failed,
            message,
            hint: None,
            silent: false,
        }
    }

    /// Tells the person, or the program, on standard error; the last thing written there.
    pub(crate) fn report(&self, as_json: bool) {
        if !self.silent {
            text::to_stderr(&self.told(as_json));
        }
    }

    /// What is written on standard error.
    pub(crate) fn told(&self, as_json: bool) -> String {
        let mut out = String::new();
        if as_json {
            let message = match &self.hint {
                Some(hint) => format!("{}; {hint}", self.message),
                None => self.message.clone(),
            };
            out.push_str(&json::exit_error(self.code as u8, &message));
        } else {
            out.push_str(&format!("error: {}", text::safe(&self.message)));
            if let Some(hint) = &self.hint {
                out.push_str(&format!("\n hint: {}", text::safe(hint)));
            }
        }
        out
    }
}

/// Standard output cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub(crate) struct StdoutError(#[source] pub(crate) io::Error);

/// An error that the run can live with, in one line.
pub(crate) fn story(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    message(chain.map(ToString::to_string))
}

/// What the person can do about an error that the run can live with.
pub(crate) fn advice(error: &CoreError) -> Option<&'static str> {
    match error {
        CoreError::ActiveWal { .. } => Some("save it with --sqlite"),
        CoreError::NotRestored { source, .. } => advice(source),
        CoreError::ForeignLog { .. } => {
            Some("stop the programs that use the database, remove the log, and restore again")
        }
        CoreError::DatabaseNotFound { .. } => {
            Some("give --sqlite=PATH the path that the backup goes")
        }
        CoreError::Database { source, .. } => match source {
            DatabaseError::NoRoom { .. } | DatabaseError::Scratch { .. } => {
                Some("choose another folder with --scratch")
            }
            DatabaseError::LongPath { .. } => {
                Some("save it by a shorter path, as `mount --bind` makes one for its folder")
            }
            DatabaseError::Locked { .. } | DatabaseError::Restless => {
                Some("run the backup again when it is less busy")
            }
            _ => None,
        },
        _ => None,
    }
}

/// The messages of a chain, each once.
pub(crate) fn message(chain: impl Iterator<Item = String>) -> String {
    let mut out = String::new();
    for words in chain {
        let words = without_number(&words);
        if out.to_lowercase().ends_with(&words.to_lowercase()) {
            continue;
        }
        if !out.is_empty() {
            out.push_str(": ");
        }
        out.push_str(words);
    }
    out
}

/// The system's "(os error 13)" says nothing that its words do not.
fn without_number(words: &str) -> &str {
    let number = words
        .strip_suffix(')')
        .and_then(|words| words.rsplit_once(" (os error "));
    match number {
        Some((words, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => words,
        _ => words,
    }
}

const NEWER: &str = "use a newer version of strongroom";
const DAMAGED: &str = "the repository is damaged; `strongroom check --read-data` shows how far";
/// Without these nothing can be opened, so that nothing can be checked.
const COPY_BACK: &str = "copy it back from a replica: without it the repository cannot be opened";

/// Whether a repository cannot be opened without an object of this kind.
const fn is_needed_to_open(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::Config | ObjectKind::Key | ObjectKind::Keyring
    )
}

/// Exit code and hint of an error that is known.
fn classify(cause: &(dyn std::error::Error + 'static)) -> Option<(Code, Option<&'static str>)> {
    if cause.is::<Cancelled>() {
        return Some((Code::Cancelled, None));
    }
    if matches!(ProgramError::in_link(cause), Some(ProgramError::Cancelled)) {
        return Some((Code::Cancelled, None));
    }
    if let Some(error) = cause.downcast_ref::<CoreError>() {
        return match error {
            CoreError::Cancelled => Some((Code::Cancelled, None)),
            CoreError::WorkerLost => Some((Code::Internal, None)),
            CoreError::Repo(error) => classify_repo(error),
            CoreError::Chunker { .. } => Some((Code::Failed, Some(NEWER))),
            CoreError::NoPath { .. } => {
                let hint = "`strongroom ls SNAPSHOT` shows what is in it";
                Some((Code::Failed, Some(hint)))
            }
            CoreError::DamagedBlob { .. }
            | CoreError::DamagedSnapshot { .. }
            | CoreError::DamagedTree { .. } => Some((Code::Failed, Some(DAMAGED))),
            _ => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<RepoError>() {
        return classify_repo(error);
    }
    if let Some(error) = cause.downcast_ref::<LogError>() {
        return classify_log(error);
    }
    None
}

fn classify_repo(error: &RepoError) -> Option<(Code, Option<&'static str>)> {
    Some(match error {
        RepoError::NoRepository { .. } => (
            Code::NoRepository,
            Some("check --repo, or make a repository with `strongroom init`"),
        ),
        RepoError::WrongPassword { left: 1.., .. } => (
            Code::WrongPassword,
            Some("give --key-hint with the beginning of the ID of the key that it opens"),
        ),
        RepoError::WrongPassword { .. } => (
            Code::WrongPassword,
            Some(
                "check the password; `strongroom key list`, where there is access, shows the keys",
            ),
        ),
        RepoError::ConfigLost { .. } => (
            Code::Failed,
            Some("copy `config` or `config.2` back from a replica; make no new repository here"),
        ),
        RepoError::AlreadyExists { .. } => (
            Code::Failed,
            Some("use it as it is, or give another folder with --repo"),
        ),
        RepoError::NoKeys { .. } | RepoError::ForeignSlot { .. } => (
            Code::Failed,
            Some("copy the files of `keys` back from a replica of this repository"),
        ),
        RepoError::NoKey { .. } => (Code::Failed, Some("`strongroom key list` shows the keys")),
        RepoError::Newer { .. } => (Code::Failed, Some(NEWER)),
        RepoError::Log(error) => return classify_log(error),
        RepoError::ThreadLost => (Code::Internal, None),
        RepoError::Conflict(_) => (Code::Failed, Some("run the command again")),
        RepoError::Backend(error) => return classify_kind(error.kind),
        RepoError::DamagedObject { object, .. }
        | RepoError::SealedObject { object, .. }
        | RepoError::WrongContent { object }
            if is_needed_to_open(object.kind()) =>
        {
            (Code::Failed, Some(COPY_BACK))
        }
        RepoError::DamagedObject { .. }
        | RepoError::SealedObject { .. }
        | RepoError::WrongContent { .. }
        | RepoError::Pack { .. }
        | RepoError::Blob { .. }
        | RepoError::WrongBlob { .. }
        | RepoError::MissingBlob { .. }
        | RepoError::Base { .. }
        | RepoError::IndexLost { .. } => (Code::Failed, Some(DAMAGED)),
        _ => return None,
    })
}

fn classify_log(error: &LogError) -> Option<(Code, Option<&'static str>)> {
    Some(match error {
        LogError::RolledBack { .. } => (
            Code::Failed,
            Some(
                "if it was put back from an older copy on purpose, add --allow-rollback once; \
                 otherwise somebody may have tampered with it",
            ),
        ),
        LogError::Newer { .. } => (Code::Failed, Some(NEWER)),
        LogError::NoLog | LogError::WrongLog(_) => (
            Code::Failed,
            Some("copy the files of `log` back from a replica of this repository"),
        ),
        LogError::Crowded { .. } => (Code::Busy, Some("run the command again")),
        LogError::NotAllowed { .. } | LogError::NoSigner => (
            Code::Failed,
            Some("use a key whose role may do this; see `strongroom key list`"),
        ),
        LogError::StateFile { .. } => (
            Code::Failed,
            Some("check who owns it, or set STRONGROOM_STATE_DIR to a folder of your own"),
        ),
        LogError::MemoryDamaged { .. } => (
            Code::Failed,
            Some(
                "add --allow-rollback once to begin a new memory; until then nobody would notice \
                 that the repository was put back",
            ),
        ),
        LogError::Backend(error) => return classify_kind(error.kind),
        _ => return None,
    })
}

fn classify_kind(kind: BackendErrorKind) -> Option<(Code, Option<&'static str>)> {
    let hint = match kind {
        BackendErrorKind::NoSpace => {
            "`strongroom forget` and then `strongroom prune` make room, also on a full disk"
        }
        BackendErrorKind::Denied => "check the owner and the mode of the repository's files",
        BackendErrorKind::ReadOnly => {
            "mount the disk with the repository so that it can be written to"
        }
        BackendErrorKind::NotFound | BackendErrorKind::TooShort | BackendErrorKind::TooLarge => {
            DAMAGED
        }
        BackendErrorKind::Unavailable => "check that the disk with the repository is mounted",
        _ => return None,
    };
    Some((Code::Failed, Some(hint)))
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;
    use strongroom_repo::backend::BackendError;

    use super::*;

    #[test]
    fn each_cause_is_told_once_and_the_number_of_a_system_error_not_at_all() {
        let source = Some(io::Error::from_raw_os_error(13));
        let error = BackendError {
            action: "read",
            object: "config".to_owned(),
            location: "/r".to_owned(),
            kind: BackendErrorKind::Denied,
            source,
        };
        let error = anyhow::Error::new(RepoError::Backend(error)).context("cannot open");
        let failure = Failure::judge(&error);
        assert_eq!(
            failure.message,
            "cannot open: read config at /r: permission denied"
        );
        assert_eq!(failure.code, Code::Failed);
        assert!(failure.hint.is_some());
    }

    #[test]
    fn exit_codes_follow_from_the_errors_of_the_engine() {
        let location = || "/r".to_owned();
        let cases = [
            (
                anyhow::Error::new(RepoError::NoRepository {
                    location: location(),
                }),
                Code::NoRepository,
            ),
            (
                anyhow::Error::new(RepoError::WrongPassword { tried: 1, left: 0 }).context("x"),
                Code::WrongPassword,
            ),
            (
                anyhow::Error::new(LogError::Crowded { rounds: 9 }),
                Code::Busy,
            ),
            (anyhow::Error::new(Cancelled::default()), Code::Cancelled),
            (anyhow::anyhow!("anything else"), Code::Failed),
        ];
        for (error, code) in cases {
            assert_eq!(Failure::judge(&error).code, code, "{error:?}");
        }
    }

    #[test]
    fn a_hint_given_by_a_command_is_no_part_of_the_message() {
        let error = Hint::of("do this").on(anyhow::anyhow!("why").context("what"));
        let failure = Failure::judge(&error);
        assert_eq!(failure.message, "what: why");
        assert_eq!(failure.hint.as_deref(), Some("do this"));
    }

    #[test]
    fn a_closed_pipe_on_standard_output_ends_quietly() {
        let closed = StdoutError(io::ErrorKind::BrokenPipe.into());
        let result: Result<(), _> = Err(closed);
        let error = result.context("listing").unwrap_err();
        assert!(Failure::judge(&error).silent);
    }
}
