//! Redis Streams, with an append-only file that is synced every second or at every write.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use benches::Result;

use crate::peer::{Event, PAGE, Peer, folder_bytes};
use crate::server::{Server, command, free_port};

/// Synced every second.
pub(crate) fn everysec(folder: &Path) -> Result<Box<dyn Peer>> {
    start(folder, "everysec")
}

/// Synced before the answers of one turn of its loop go out.
pub(crate) fn always(folder: &Path) -> Result<Box<dyn Peer>> {
    start(folder, "always")
}

fn start(folder: &Path, sync: &str) -> Result<Box<dyn Peer>> {
    let port = free_port()?;
    let mut redis = command("redis-server")?;
    redis.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "yes"]);
    redis.args(["--appendfsync", sync, "--daemonize", "no", "--dir"]).arg(folder);
    let server = Server::start(&mut redis, folder, port)?;
    let stream = BufReader::with_capacity(1 << 20, server.connect()?);
    Ok(Box::new(Redis {
        server,
        stream,
        folder: folder.to_owned(),
        request: Vec::new(),
        read: "0".to_owned(),
    }))
}

struct Redis {
    server: Server,
    stream: BufReader<TcpStream>,
    folder: PathBuf,
    request: Vec<u8>,
    /// The id of the last entry read.
    read: String,
}

impl Redis {
    fn ask(&mut self, parts: &[&[u8]]) {
        self.request.extend(format!("*{}\r\n", parts.len()).into_bytes());
        for part in parts {
            self.request.extend(format!("${}\r\n", part.len()).into_bytes());
            self.request.extend(*part);
            self.request.extend(b"\r\n");
        }
    }

    fn send(&mut self) -> Result<()> {
        self.stream.get_mut().write_all(&self.request)?;
        self.request.clear();
        Ok(())
    }

    /// The length in the head of an answer of this kind.
    fn head(&mut self, kind: char) -> Result<usize> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let length = line.strip_prefix(kind).and_then(|rest| rest.trim_end().parse().ok());
        length.ok_or_else(|| format!("redis answered {line:?}").into())
    }

    fn bulk(&mut self, into: &mut Vec<u8>) -> Result<()> {
        let length = self.head('$')?;
        into.resize(length + 2, 0);
        self.stream.read_exact(into)?;
        into.truncate(length);
        Ok(())
    }
}

impl Peer for Redis {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        for event in batch {
            self.ask(&[b"XADD", b"events", b"*", b"e", event.body.as_str().as_bytes()]);
        }
        self.send()?;
        let mut id = Vec::new();
        batch.iter().try_for_each(|_| self.bulk(&mut id))
    }

    fn read(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        let (mut count, mut value) = (0, Vec::new());
        loop {
            let (after, page) = (format!("({}", self.read), PAGE.to_string());
            self.ask(&[b"XRANGE", b"events", after.as_bytes(), b"+", b"COUNT", page.as_bytes()]);
            self.send()?;
            let entries = self.head('*')?;
            for _ in 0..entries {
                self.head('*')?;
                self.bulk(&mut value)?;
                self.read = String::from_utf8(value.clone())?;
                self.head('*')?;
                self.bulk(&mut value)?;
                self.bulk(&mut value)?;
                visit(&value);
            }
            let entries = u64::try_from(entries)?;
            count += entries;
            if entries < PAGE {
                return Ok(Some(count));
            }
        }
    }

    fn server_cpu(&self) -> Duration {
        self.server.cpu()
    }

    fn bytes(&mut self) -> Result<u64> {
        folder_bytes(&self.folder)
    }
}
