//! A folder with databases, the binary run in it, and what it printed with everything redacted that changes.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// A folder in which commands run.
pub(crate) struct World {
    folder: TempDir,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A project with one attached database of two customers, drained.
    pub(crate) fn with_customers() -> Self {
        let world = Self::new();
        world.sql("app.db", CUSTOMERS);
        world.ok("init");
        world.ok("attach app.db --id crm.headless.ly/acme --context crm.headless.ly");
        world.ok("run --once");
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(name)
    }

    /// The command, not run yet. Words are separated by spaces.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cdc"));
        command.args(line.split_whitespace()).current_dir(self.folder.path());
        command.env_clear().stdin(Stdio::null());
        command
    }

    pub(crate) fn cdc(&self, line: &str) -> Ran {
        Ran::of(&mut self.command(line))
    }

    /// Runs a command that must succeed. Gives its stdout.
    pub(crate) fn ok(&self, line: &str) -> String {
        let ran = self.cdc(line);
        assert_eq!(ran.code, Some(0), "cdc {line}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// Runs a command that must succeed. Gives what it printed, line by line.
    pub(crate) fn values(&self, line: &str) -> Vec<Value> {
        self.ok(line).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs commands one after the other. Gives what a person would have seen.
    pub(crate) fn session(&self, lines: &[&str]) -> String {
        let mut seen = String::new();
        for line in lines {
            let Ran { code, stdout, stderr } = self.cdc(line);
            let code = code.map_or("killed".to_owned(), |code| code.to_string());
            writeln!(seen, "$ cdc {line}\n{stdout}{stderr}[{code}]\n").unwrap();
        }
        self.redact(&seen)
    }

    pub(crate) fn sql(&self, database: &str, sql: &str) {
        let connection = Connection::open(self.path(database)).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection.execute_batch(sql).unwrap();
    }

    /// The names of everything in a database that is ours.
    pub(crate) fn ours(&self, database: &str) -> Vec<String> {
        let connection = Connection::open(self.path(database)).unwrap();
        let sql = "SELECT name FROM sqlite_master WHERE name LIKE '\\_cdc%' ESCAPE '\\' ORDER BY name";
        let mut statement = connection.prepare(sql).unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn start(&self, line: &str) -> Live {
        let mut command = self.command(line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Live { child: Running(child), stdout, stderr }
    }

    /// Puts a word where something stands that is different in each run.
    pub(crate) fn redact(&self, text: &str) -> String {
        let folder = self.path("");
        let text = text.replace(folder.to_str().unwrap().trim_end_matches('/'), "[FOLDER]");
        redact(&text)
    }
}

/// Two customers, and a table that cannot be captured.
pub(crate) const CUSTOMERS: &str = "PRAGMA journal_mode = WAL;
    CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, tier TEXT);
    INSERT INTO customers VALUES (1, 'Ada', 'free'), (42, 'Bob', 'free');";

/// One change of each kind.
pub(crate) const CHANGES: &str = "UPDATE customers SET tier = 'pro' WHERE id = 42;
    INSERT INTO customers VALUES (7, 'Cleo', NULL);
    DELETE FROM customers WHERE id = 1;";

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// A command that runs until it is stopped.
pub(crate) struct Live {
    child: Running,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
}

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended when it cannot be killed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Live {
    /// The next line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Waits until a line of stderr has this in it.
    pub(crate) fn told(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            assert!(read > 0, "it ended without saying {text:?}");
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Stops reading and waits for the end.
    pub(crate) fn close(self) -> Ran {
        let Self { mut child, stdout, mut stderr } = self;
        drop(stdout);
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        Ran { code: child.0.wait().unwrap().code(), stdout: String::new(), stderr: text }
    }

    /// Sends a signal and waits for the end. Gives what was not read before.
    pub(crate) fn stop(mut self, signal: &str) -> Ran {
        let pid = self.child.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.stdout.read_to_string(&mut stdout).unwrap();
        self.stderr.read_to_string(&mut stderr).unwrap();
        Ran { code: self.child.0.wait().unwrap().code(), stdout, stderr }
    }
}

/// What is redacted: `d` stands for a digit, `x` for a hexadecimal one.
const SHAPES: [(&str, &str); 4] = [
    ("dddd-dd-ddTdd:dd:dd.dddZ", "[TIME]"),
    ("xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "[EVENT]"),
    ("d-xxxxxxxxxxxxxxxx", "[EPOCH]"),
    ("ddddddddddddd", "[MS]"),
];

fn redact(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        // Only whole numbers: nothing in the middle of one.
        let inside = out.ends_with(|before: char| before.is_ascii_alphanumeric());
        let found = SHAPES.iter().find(|(shape, _)| !inside && has_shape(rest, shape));
        let len = found.map_or(first.len_utf8(), |(shape, _)| shape.len());
        let (this, next) = rest.split_at(len);
        out.push_str(found.map_or(this, |(_, word)| word));
        rest = next;
    }
    out
}

fn has_shape(text: &str, shape: &str) -> bool {
    text.len() >= shape.len()
        && !text.as_bytes().get(shape.len()).is_some_and(u8::is_ascii_alphanumeric)
        && shape.bytes().zip(text.bytes()).all(|(shape, byte)| match shape {
            b'd' => byte.is_ascii_digit(),
            b'x' => byte.is_ascii_hexdigit(),
            other => other == byte,
        })
}
