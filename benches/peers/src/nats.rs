//! NATS JetStream with a file store, synced as it comes or after every message.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use benches::Result;

use crate::peer::{Event, PAGE, Peer, folder_bytes};
use crate::server::{Server, command, free_port};

/// Synced every two minutes, as it comes.
pub(crate) fn default(folder: &Path) -> Result<Box<dyn Peer>> {
    start(folder, "2m")
}

/// Synced after every message.
pub(crate) fn always(folder: &Path) -> Result<Box<dyn Peer>> {
    start(folder, "always")
}

fn start(folder: &Path, sync: &str) -> Result<Box<dyn Peer>> {
    let port = free_port()?;
    let settings = folder.join("nats.conf");
    let store = folder.join("store");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: {store:?}, sync_interval: {sync} }}\n"
    );
    fs::write(&settings, text)?;
    let server = Server::start(command("nats-server")?.arg("-c").arg(settings), folder, port)?;
    let stream = BufReader::with_capacity(1 << 20, server.connect()?);
    let mut nats = Nats { server, stream, store, request: Vec::new(), unread: 0 };
    nats.request
        .extend(b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB answers 1\r\n");
    nats.call(
        "STREAM.CREATE.EVENTS",
        "{\"name\":\"EVENTS\",\"subjects\":[\"events\"],\"storage\":\"file\"}",
    )?;
    nats.call(
        "CONSUMER.CREATE.EVENTS.reader",
        "{\"stream_name\":\"EVENTS\",\"config\":{\"name\":\"reader\",\"ack_policy\":\"none\",\"deliver_policy\":\"all\",\
         \"inactive_threshold\":3600000000000}}",
    )?;
    Ok(Box::new(nats))
}

struct Nats {
    server: Server,
    stream: BufReader<TcpStream>,
    store: PathBuf,
    request: Vec<u8>,
    unread: u64,
}

impl Nats {
    fn ask(&mut self, subject: &str, payload: &[u8]) {
        self.request.extend(format!("PUB {subject} answers {}\r\n", payload.len()).into_bytes());
        self.request.extend(payload);
        self.request.extend(b"\r\n");
    }

    fn send(&mut self) -> Result<()> {
        self.stream.get_mut().write_all(&self.request)?;
        self.request.clear();
        Ok(())
    }

    /// The payload of the next message; one with headers is a refusal here.
    fn message(&mut self, into: &mut Vec<u8>) -> Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("MSG") => {
                    let length: usize = words.last().ok_or("a message without a length")?.parse()?;
                    into.resize(length + 2, 0);
                    self.stream.read_exact(into)?;
                    into.truncate(length);
                    return Ok(());
                }
                Some("PING") => self.stream.get_mut().write_all(b"PONG\r\n")?,
                Some("INFO" | "PONG" | "+OK") => {}
                _ => return Err(format!("nats answered {line:?}").into()),
            }
        }
    }

    /// Calls JetStream's API.
    fn call(&mut self, name: &str, payload: &str) -> Result<()> {
        self.ask(&format!("$JS.API.{name}"), payload.as_bytes());
        self.send()?;
        let mut answer = Vec::new();
        self.message(&mut answer)?;
        refused(&answer)
    }
}

fn refused(answer: &[u8]) -> Result<()> {
    let answer = String::from_utf8_lossy(answer);
    if answer.contains("\"error\":") { Err(format!("nats answered {answer}").into()) } else { Ok(()) }
}

impl Peer for Nats {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        for event in batch {
            self.ask("events", event.body.as_str().as_bytes());
        }
        self.send()?;
        let mut answer = Vec::new();
        for _ in batch {
            self.message(&mut answer)?;
            refused(&answer)?;
            self.unread += 1;
        }
        Ok(())
    }

    fn read(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        let (count, mut body) = (self.unread, Vec::new());
        while self.unread > 0 {
            let page = self.unread.min(PAGE);
            self.ask("$JS.API.CONSUMER.MSG.NEXT.EVENTS.reader", format!("{{\"batch\":{page}}}").as_bytes());
            self.send()?;
            for _ in 0..page {
                self.message(&mut body)?;
                visit(&body);
            }
            self.unread -= page;
        }
        Ok(Some(count))
    }

    fn server_cpu(&self) -> Duration {
        self.server.cpu()
    }

    fn bytes(&mut self) -> Result<u64> {
        folder_bytes(&self.store)
    }
}
