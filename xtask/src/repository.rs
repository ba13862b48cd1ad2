//! The checkout the task works in, and the programs it starts there.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::error::Error;

/// Where the sources are and where cargo builds.
#[derive(Debug, Clone)]
pub(crate) struct Repository {
    /// The folder of the root manifest.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, wherever it is.
    pub(crate) target: PathBuf,
}

impl Repository {
    /// Asks cargo where the workspace is.
    pub(crate) fn find() -> Result<Self, Error> {
        let mut metadata = Command::new("cargo");
        metadata.args(["metadata", "--no-deps", "--format-version", "1"]);
        let printed = output(&mut metadata)?;
        let answer: serde_json::Value =
            serde_json::from_str(&printed).map_err(|error| unexpected(&metadata, error.to_string()))?;
        let folder = |member: &str| {
            let path = answer.get(member).and_then(serde_json::Value::as_str).map(PathBuf::from);
            path.ok_or_else(|| unexpected(&metadata, format!("no `{member}`")))
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// A program that will run in the root folder.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        command
    }

    /// Cargo, in the root folder.
    pub(crate) fn cargo<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.command("cargo");
        command.args(arguments);
        command
    }

    /// The text of a file of the repository.
    pub(crate) fn read(&self, path: &str) -> Result<String, Error> {
        let full = self.root.join(path);
        std::fs::read_to_string(&full).map_err(|source| Error::File { path: full, source })
    }
}

/// Shows the command line, runs it with our own standard streams and returns its exit code.
pub(crate) fn code(command: &mut Command) -> Result<u8, Error> {
    println!("$ {}", line(command));
    let status = command.status().map_err(|source| start(command, source))?;
    Ok(exit_code(status))
}

/// Like [`code`], for a program that has to succeed before anything else makes sense.
pub(crate) fn succeed(command: &mut Command) -> Result<(), Error> {
    match code(command)? {
        0 => Ok(()),
        code => Err(Error::Failed { command: line(command), code }),
    }
}

/// Runs a program quietly and returns what it printed.
pub(crate) fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|source| start(command, source))?;
    if !output.status.success() {
        return Err(Error::Failed { command: line(command), code: exit_code(output.status) });
    }
    String::from_utf8(output.stdout).map_err(|error| unexpected(command, error.to_string()))
}

/// Whether a program starts and succeeds; its output is dropped.
pub(crate) fn works(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// Makes a folder and every folder above it.
pub(crate) fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

/// Makes a folder that is empty, whatever it held before.
pub(crate) fn empty_folder(path: &Path) -> Result<(), Error> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::File { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => make_folder(path),
    }
}

fn line(command: &Command) -> String {
    let parts = std::iter::once(command.get_program()).chain(command.get_args());
    parts.map(|part| quoted(&part.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

/// As a shell would want it, for people who copy the line.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn start(command: &Command, source: std::io::Error) -> Error {
    Error::Start { program: command.get_program().to_string_lossy().into_owned(), source }
}

fn unexpected(command: &Command, what: String) -> Error {
    Error::Answer { command: line(command), what }
}

fn exit_code(status: ExitStatus) -> u8 {
    status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
