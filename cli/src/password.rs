//! Passwords: where they come from, and asking for one. A password is never an argument and never
//! printed.
//!
//! Order: the options, then the variables `PASSWORD_FILE` and `PASSWORD_COMMAND`, then `PASSWORD`,
//! then the person at the terminal, or the first line of standard input where that is no terminal.

use std::{
    ffi::{OsStr, OsString},
    io::{BufRead as _, IsTerminal as _},
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    env::Vars,
    error::{Cancelled, Hint},
    show::Show,
};

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// There is none.
    Empty,
    /// The content of a file.
    File(PathBuf),
    /// What a command prints.
    Command(OsString),
    /// A variable.
    Variable(Vec<u8>),
    /// A person, or standard input.
    Ask,
}

/// What the options say of a password.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// `--password-file` and its kin.
    pub(crate) file: Option<PathBuf>,
    /// `--password-command` and its kin.
    pub(crate) command: Option<OsString>,
    /// `--insecure-no-password` and its kin.
    pub(crate) none: bool,
}

/// Largest password taken from anywhere, in bytes.
const MAX_LEN: usize = 64 << 10;

impl Source {
    /// Decides where the password comes from.
    pub(crate) fn choose(given: Given, vars: &Vars) -> Result<Self> {
        let variable = vars.own("PASSWORD").map(|text| text.as_bytes().to_vec());
        let from_vars = (vars.own("PASSWORD_FILE"), vars.own("PASSWORD_COMMAND"));
        match given {
            Given { none: true, .. } => {
                let nowhere = variable.is_none() && from_vars == (None, None);
                ensure!(
                    nowhere,
                    "--insecure-no-password is given, but a STRONGROOM_PASSWORD variable as well"
                );
                Ok(Self::Empty)
            }
            Given {
                file: Some(file), ..
            } => Ok(Self::File(file)),
            Given {
                command: Some(command),
                ..
            } => Ok(Self::Command(command)),
            Given { .. } => match from_vars {
                (Some(_), Some(_)) => bail!(
                    "STRONGROOM_PASSWORD_FILE and STRONGROOM_PASSWORD_COMMAND are both set: \
                     unset one"
                ),
                (Some(file), None) => Ok(Self::File(file.into())),
                (None, Some(command)) => Ok(Self::Command(command.to_owned())),
                (None, None) => Ok(variable.map_or(Self::Ask, Self::Variable)),
            },
        }
    }

    /// Gets the password of a repository that exists.
    pub(crate) fn read(self, show: &Show, stdin_is_data: bool) -> Result<Vec<u8>> {
        self.obtain(
            show,
            stdin_is_data,
            Prompt::Once("Password of the repository: "),
        )
    }

    /// Gets a new password; a person types it twice.
    pub(crate) fn read_new(self, show: &Show) -> Result<Vec<u8>> {
        self.obtain(show, false, Prompt::Twice("New password: "))
    }

    fn obtain(self, show: &Show, stdin_is_data: bool, prompt: Prompt) -> Result<Vec<u8>> {
        let password = match self {
            Self::Empty => return Ok(Vec::new()),
            Self::File(path) => read_file(&path, show)?,
            Self::Command(command) => run(&command)?,
            Self::Variable(password) => password,
            Self::Ask if stdin_is_data || std::io::stdin().is_terminal() => prompt.ask()?,
            Self::Ask => read_line()?,
        };
        if password.is_empty() {
            return Err(Hint::of(
                "give --insecure-no-password if that is what you want, and for a key's new one \
                     --new-insecure-no-password",
            )
            .on(anyhow::anyhow!("the password is empty")));
        }
        ensure!(
            password.len() <= MAX_LEN,
            "the password is longer than 64 KiB"
        );
        Ok(password)
    }
}

fn read_file(path: &Path, show: &Show) -> Result<Vec<u8>> {
    let what = || format!("cannot read the password file {}", path.display());
    let about = std::fs::metadata(path).with_context(what)?;
    if about.is_file() && about.mode() & 0o007 != 0 {
        show.warn(&format!(
            "everybody on this machine can read the password file {} (mode {:o}): chmod o-rwx it",
            path.display(),
            about.mode() & 0o777,
        ));
    }
    let bytes = std::fs::read(path).with_context(what)?;
    Ok(bytes.trim_ascii().to_vec())
}

fn read_line() -> Result<Vec<u8>> {
    let mut line = Vec::new();
    std::io::stdin()
        .lock()
        .read_until(b'\n', &mut line)
        .context("cannot read the password from standard input")?;
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(Hint::of(
            "set STRONGROOM_PASSWORD_FILE or STRONGROOM_PASSWORD_COMMAND, or run it on a terminal",
        )
        .on(anyhow::anyhow!("no password was given")));
    }
    Ok(line.to_vec())
}

/// Runs a command without a shell and takes what it prints.
fn run(command: &OsStr) -> Result<Vec<u8>> {
    let words = split_words(command.as_bytes())?;
    let Some((program, arguments)) = words.split_first() else {
        bail!("the password command is empty");
    };
    let name = Path::new(program).display().to_string();
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run the password command {name}"))?;
    let status = output.status;
    ensure!(
        status.success(),
        "the password command {name} failed: {status}"
    );
    Ok(output.stdout.trim_ascii().to_vec())
}

/// Divides a command line at white space; quotes and backslashes keep it together.
fn split_words(line: &[u8]) -> Result<Vec<OsString>> {
    let mut words: Vec<OsString> = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (None | Some(b'"'), b'\\') => {
                let Some(next) = bytes.next() else {
                    bail!("the password command ends with a backslash");
                };
                word.get_or_insert_default().push(next);
            }
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, b' ' | b'\t' | b'\n') => {
                words.extend(word.take().map(OsString::from_vec));
            }
            _ => word.get_or_insert_default().push(byte),
        }
    }
    ensure!(
        quote.is_none(),
        "the password command has a quote without an end"
    );
    words.extend(word.map(OsString::from_vec));
    Ok(words)
}

/// How a person is asked.
#[derive(Clone, Copy, Debug)]
enum Prompt {
    Once(&'static str),
    Twice(&'static str),
}

impl Prompt {
    fn ask(self) -> Result<Vec<u8>> {
        let ask = |text: &str| {
            rpassword::prompt_password(text)
                .map_err(|error| match error.kind() {
                    std::io::ErrorKind::Interrupted => anyhow::Error::new(Cancelled::default()),
                    _ => error.into(),
                })
                .context("cannot ask for the password")
        };
        match self {
            Self::Once(text) => Ok(ask(text)?.into_bytes()),
            Self::Twice(text) => {
                let password = ask(text)?;
                if password.is_empty() {
                    // Refused anyway: no need to type it again.
                    return Ok(Vec::new());
                }
                ensure!(
                    password == ask("The same again: ")?,
                    "the two passwords differ"
                );
                Ok(password.into_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let words = split_words(line.as_bytes()).ok()?;
        Some(
            words
                .into_iter()
                .map(|w| w.into_string().unwrap())
                .collect(),
        )
    }

    #[test]
    fn a_command_is_divided_as_a_shell_would_without_being_one() {
        let cases: [(&str, &[&str]); 5] = [
            ("pass show backup", &["pass", "show", "backup"]),
            ("  a\t'b c'  ", &["a", "b c"]),
            (r#"a "b \" $HOME" '' "#, &["a", "b \" $HOME", ""]),
            (r"a\ b", &["a b"]),
            ("", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for line in ["'a", "\"a", "a\\"] {
            assert_eq!(words(line), None, "{line}");
        }
    }

    #[test]
    fn options_come_before_variables_and_files_before_the_variable_itself() {
        let vars = Vars::of([
            ("STRONGROOM_PASSWORD_FILE", "/file"),
            ("STRONGROOM_PASSWORD", "x"),
        ]);
        let choose = |given| Source::choose(given, &vars).ok();
        let command = Given {
            command: Some("c".into()),
            ..Given::default()
        };
        assert_eq!(choose(command), Some(Source::Command("c".into())));
        assert_eq!(choose(Given::default()), Some(Source::File("/file".into())));
        let none = Given {
            none: true,
            ..Given::default()
        };
        assert_eq!(choose(none), None, "a password and none contradict");
        let only = Vars::of([("STRONGROOM_PASSWORD", "x")]);
        let chosen = Source::choose(Given::default(), &only).ok();
        assert_eq!(chosen, Some(Source::Variable(b"x".to_vec())));
    }
}
