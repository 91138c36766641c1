//! A hermetic place to run the program in: a folder of its own, no variables but those set here,
//! UTC, and a password.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// The folder; gone with the value.
pub(crate) struct Sandbox {
    folder: TempDir,
}

/// What a run said and how it ended.
#[derive(Debug)]
#[must_use = "look at what the run said"]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Sandbox {
    /// A folder with nothing in it.
    pub(crate) fn empty() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
        }
    }

    /// A folder with a repository, and two files below `src`.
    pub(crate) fn with_repository() -> Self {
        let sandbox = Self::empty();
        sandbox.write("src/a.txt", b"alpha\n");
        sandbox.write("src/sub/b.bin", &[7; 100_000]);
        assert_eq!(sandbox.run(["-q", "init"]).code, 0);
        sandbox
    }

    /// The folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: impl AsRef<Path>, content: &[u8]) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The program, about to run here.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_strongroom"));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("TZ", "UTC")
            .env("STRONGROOM_REPOSITORY", self.path("repo"))
            .env("STRONGROOM_PASSWORD", "correct horse")
            .env("STRONGROOM_HOST", "box")
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program.
    pub(crate) fn run<const N: usize>(&self, arguments: [&str; N]) -> Said {
        self.said(self.command().args(arguments).output().unwrap())
    }

    /// Runs the program with other variables; an empty one counts as not set.
    pub(crate) fn run_with<const N: usize>(
        &self,
        variables: &[(&str, &str)],
        arguments: [&str; N],
    ) -> Said {
        let mut command = self.command();
        command.envs(variables.iter().copied()).args(arguments);
        self.said(command.output().unwrap())
    }

    /// Runs the program with this on standard input.
    pub(crate) fn run_fed<S: AsRef<OsStr>>(&self, input: &[u8], arguments: &[S]) -> Said {
        let mut command = self.command();
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        self.said(child.wait_with_output().unwrap())
    }

    /// What was said, with the sandbox's own path as `$SANDBOX`.
    fn said(&self, output: Output) -> Said {
        let text = |bytes| {
            String::from_utf8(bytes)
                .unwrap()
                .replace(self.folder.path().to_str().unwrap(), "$SANDBOX")
        };
        Said {
            code: output.status.code().unwrap_or(-1),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    }

    /// Saves `src` and returns the message about it.
    pub(crate) fn backup(&self) -> Value {
        let said = self.run(["--json", "backup", "src"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.last_message()
    }
}

impl Said {
    /// The messages on standard output, one a line.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap();
        self.out.lines().map(parse).collect()
    }

    /// The last of them.
    pub(crate) fn last_message(&self) -> Value {
        self.messages().pop().unwrap()
    }

    /// The last line on standard error, as a message.
    pub(crate) fn last_error(&self) -> Value {
        serde_json::from_str(self.err.lines().last().unwrap()).unwrap()
    }
}
