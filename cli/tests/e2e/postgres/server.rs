//! A PostgreSQL server of one test: made in a folder of its own, reached by a socket there and by a
//! free port, ended with the value.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use tempfile::TempDir;

use crate::{
    runs::{NOBODY, is_root},
    sandbox::{Said, Sandbox},
};

/// The superuser's password, for connections over the network.
pub(crate) const PASSWORD: &str = "Tr0ub4dor&3";

/// A server.
pub(crate) struct Server {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
}

/// The folder of the newest server that is installed.
fn programs() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            let folder = version.path().join("bin");
            folder.join("initdb").exists().then_some((number, folder))
        })
        .collect();
    found.sort();
    let Some((_, folder)) = found.pop() else {
        panic!("no PostgreSQL server: `.ci/prepare test` installs one");
    };
    folder
}

impl Server {
    /// Makes a server and starts it.
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let home = folder.path().join("server");
        fs::create_dir(&home).unwrap();
        fs::write(folder.path().join("password"), PASSWORD).unwrap();
        if is_root() {
            chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut server = Self {
            folder,
            programs: programs(),
            port: 0,
        };
        let mut initdb = server.program("initdb");
        initdb.args(["--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"]);
        initdb.args([
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--no-sync",
        ]);
        initdb.arg(format!("--pwfile={}", server.path("password").display()));
        run(initdb.arg("-D").arg(server.path("server/data")));
        // Between the choice of a free port and its use, another may take it.
        for attempt in 0.. {
            server.port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .unwrap()
                .port();
            let options = format!(
                "-k {} -p {} -c listen_addresses=127.0.0.1 -c fsync=off -c autovacuum=off",
                server.path("server").display(),
                server.port
            );
            let mut start = server.control("start");
            start.arg("-l").arg(server.path("server/log"));
            start.args(["-o", &options]);
            if start.output().unwrap().status.success() {
                break;
            }
            let log = fs::read_to_string(server.path("server/log"));
            assert!(attempt < 3, "the server does not start: {log:?}");
        }
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program of PostgreSQL, as the user to whom the server belongs.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.env_clear().env("PATH", "/usr/bin:/bin");
        command.env("TZ", "UTC").stdin(Stdio::null());
        command.current_dir(self.folder.path());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn control(&self, what: &str) -> Command {
        let mut command = self.program("pg_ctl");
        command
            .args([what, "-w", "-D"])
            .arg(self.path("server/data"));
        command
    }

    /// The folder of its socket.
    pub(crate) fn socket(&self) -> String {
        self.path("server").to_str().unwrap().to_owned()
    }

    /// Its URL over the network, for this user.
    pub(crate) fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@127.0.0.1:{}", self.port)
    }

    /// Its URL by the socket.
    pub(crate) fn local_url(&self, user: &str) -> String {
        let host = self.socket().replace('/', "%2F");
        format!("postgresql://{user}@{host}:{}", self.port)
    }

    /// The variables that lead to it.
    pub(crate) fn variables(&self) -> [(&'static str, String); 3] {
        [
            ("PGHOST", self.socket()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", "postgres".to_owned()),
        ]
    }

    /// `strongroom`, with the programs of PostgreSQL in its path.
    pub(crate) fn strongroom(&self, sandbox: &Sandbox, arguments: &[&str]) -> Command {
        let mut command = sandbox.command();
        let path = format!("{}:/usr/bin:/bin", self.programs.display());
        command.env("PATH", path).args(arguments);
        command
    }

    /// The folder of PostgreSQL's programs.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = self.program("psql");
        command
            .envs(self.variables())
            .env("PGDATABASE", database)
            .args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs a script in a database and returns what it printed.
    pub(crate) fn sql(&self, database: &str, script: &str) -> String {
        let mut child = self.psql(database).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(script.as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (said, out) = (text(output.stderr), text(output.stdout));
        assert!(output.status.success(), "{script}: {said}");
        out.trim_end().to_owned()
    }

    /// A session in which a script was run, and which goes on until it is dropped.
    pub(crate) fn session(&self, database: &str, script: &str) -> Session {
        let mut child = self.psql(database).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let script = format!("{script}\n\\echo ready\n");
        input.write_all(script.as_bytes()).unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line.trim_end() != "ready" {
            line.clear();
            let len = std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
            assert_ne!(len, 0, "the session ended");
        }
        Session {
            child,
            input: Some(input),
        }
    }

    /// Asks until the answer is `t`.
    pub(crate) fn wait_until(&self, question: &str) {
        for _ in 0..3000 {
            if self.sql("postgres", question) == "t" {
                return;
            }
        }
        panic!("it never comes true: {question}");
    }

    /// Sees that no program of strongroom is connected any more.
    pub(crate) fn see_that_all_left(&self) {
        self.wait_until(
            "SELECT count(*) = 0 FROM pg_stat_activity \
             WHERE application_name IN ('pg_dump', 'pg_dumpall', 'pg_restore')",
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopped = self.control("stop").args(["-m", "immediate"]).output();
        let stopped = stopped.is_ok_and(|output| output.status.success());
        if !stopped {
            eprintln!("the server in {} could not be stopped", self.socket());
        }
    }
}

/// See [`Server::session`].
pub(crate) struct Session {
    child: Child,
    input: Option<ChildStdin>,
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.input.take());
        let ended = self.child.wait();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Runs a command to its end; nothing of what it says may hold the password.
pub(crate) fn said(mut command: Command) -> Said {
    let said = crate::runs::said({
        command.stdin(Stdio::null());
        command
    });
    assert!(!said.out.contains(PASSWORD), "{said:?}");
    assert!(!said.err.contains(PASSWORD), "{said:?}");
    said
}
