//! Foreign writers: processes of `tests/foreign/writer.c`, each linked with a SQLite of its own.

use std::io::{self, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use cdc_model::Value;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/writer.c");

/// Where writers are built.
const BUILT: &str = env!("CARGO_TARGET_TMPDIR");

/// Names the folder with the sources of SQLite 3.26, which `cargo xtask differential` fetches.
const OLD_SOURCES: &str = "CDC_SQLITE_3_26";

/// The kinds of writer there are: the oldest SQLite that is promised, the machine's own, the one this crate is built with.
pub(crate) const KINDS: [&str; 3] = ["3.26", "system", "current"];

/// Builds a writer of this kind. `None` when its SQLite is not here.
pub(crate) fn build(kind: &str) -> Option<PathBuf> {
    let program = Path::new(BUILT).join(format!("writer-{kind}-{}", std::process::id()));
    let built = match kind {
        "3.26" => old_library().is_some_and(|library| compile(&program, &[&library])),
        "system" => ["-lsqlite3", "-l:libsqlite3.so.0"].iter().any(|library| compile(&program, &[library])),
        "current" => own_library().is_some_and(|library| compile(&program, &[&library])),
        other => panic!("there is no writer {other}; there are {KINDS:?}"),
    };
    built.then_some(program)
}

fn compile(program: &Path, libraries: &[&str]) -> bool {
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-o"]).arg(program).arg(SOURCE).args(libraries).args([
        "-lpthread",
        "-ldl",
        "-lm",
    ]);
    cc.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn old_library() -> Option<String> {
    let sources = PathBuf::from(std::env::var_os(OLD_SOURCES)?);
    let object = Path::new(BUILT).join("sqlite-3.26.o");
    if !object.exists() {
        let mut cc = Command::new("cc");
        let half = object.with_extension("half");
        cc.args(["-O2", "-w", "-DSQLITE_OMIT_LOAD_EXTENSION", "-c", "-o"]).arg(&half);
        assert!(
            cc.arg(sources.join("sqlite3.c")).status().unwrap().success(),
            "SQLite 3.26 does not compile"
        );
        std::fs::rename(half, &object).unwrap();
    }
    object.to_str().map(str::to_owned)
}

/// The library that this test is linked with, where cargo built it.
fn own_library() -> Option<String> {
    let build = std::env::current_exe().ok()?.parent()?.parent()?.join("build");
    let libraries = std::fs::read_dir(build).ok()?.filter_map(|entry| {
        let library = entry.ok()?.path().join("out/libsqlite3.a");
        let made = library.metadata().ok()?.modified().ok()?;
        Some((made, library))
    });
    libraries.max()?.1.to_str().map(str::to_owned)
}

/// What a writer said to one request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// SQLite's extended code; 0 when all is well.
    pub(crate) code: i32,
    pub(crate) changes: i32,
    /// Whether the connection is in no transaction.
    pub(crate) outside: bool,
    pub(crate) message: String,
}

/// A foreign process that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    child: Child,
    requests: BufWriter<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Of its SQLite, as `sqlite3_libversion_number` says it.
    pub(crate) version: i32,
}

impl Writer {
    pub(crate) fn start(program: &Path) -> Self {
        let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let requests = BufWriter::new(child.stdin.take().unwrap());
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut writer = Self { child, requests, answers, version: 0 };
        writer.requests.write_all(b"V").unwrap();
        writer.send().unwrap();
        writer.version = writer.answer().unwrap().changes;
        writer
    }

    fn text(&mut self, text: &[u8]) -> io::Result<()> {
        self.requests.write_all(&u32::try_from(text.len()).unwrap().to_ne_bytes())?;
        self.requests.write_all(text)
    }

    pub(crate) fn open(&mut self, conn: u8, path: &Path) -> io::Result<()> {
        self.requests.write_all(&[b'O', conn])?;
        self.text(path.to_str().unwrap().as_bytes())
    }

    pub(crate) fn close(&mut self, conn: u8) -> io::Result<()> {
        self.requests.write_all(&[b'C', conn])
    }

    pub(crate) fn execute(&mut self, conn: u8, text: &str) -> io::Result<()> {
        self.requests.write_all(&[b'X', conn])?;
        self.text(text.as_bytes())
    }

    pub(crate) fn prepared(&mut self, conn: u8, slot: u8, text: &str, values: &[Value]) -> io::Result<()> {
        self.requests.write_all(&[b'P', conn, slot])?;
        self.text(text.as_bytes())?;
        self.requests.write_all(&[u8::try_from(values.len()).unwrap()])?;
        for value in values {
            match value {
                Value::Null => self.requests.write_all(b"n")?,
                Value::Integer(i) => {
                    self.requests.write_all(b"i")?;
                    self.requests.write_all(&i.to_ne_bytes())?;
                }
                Value::Real(r) => {
                    self.requests.write_all(b"r")?;
                    self.requests.write_all(&r.to_ne_bytes())?;
                }
                Value::Text(bytes) => {
                    self.requests.write_all(b"t")?;
                    self.text(bytes)?;
                }
                Value::Blob(bytes) => {
                    self.requests.write_all(b"b")?;
                    self.text(bytes)?;
                }
                Value::Omitted { .. } => panic!("nobody writes an omitted value"),
            }
        }
        Ok(())
    }

    /// Has the writer do what was asked, and answer.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        self.requests.write_all(b"F")?;
        self.requests.flush()
    }

    /// The answer to the oldest request that is not answered yet.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let mut head = [0; 13];
        self.answers.read_exact(&mut head)?;
        let number = |at: usize| i32::from_ne_bytes(head[at..at + 4].try_into().unwrap());
        let mut message = vec![0; usize::try_from(number(9)).unwrap()];
        self.answers.read_exact(&mut message)?;
        let message = String::from_utf8_lossy(&message).into_owned();
        Ok(Answer { code: number(0), changes: number(4), outside: head[8] == 1, message })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let ended = self.child.kill().and_then(|()| self.child.wait());
        drop(ended);
    }
}
