//! PostgreSQL: a statement inserts a batch, and logical decoding hands out what was inserted.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use ::postgres::{Client, NoTls, Statement};
use benches::Result;

use crate::peer::{Event, PAGE, Peer};
use crate::server::{Server, command, free_port, until};

/// Synced at every commit, as it comes.
pub(crate) fn logical(folder: &Path) -> Result<Box<dyn Peer>> {
    let account = account(folder)?;
    let data = folder.join("data");
    fs::create_dir(&data)?;
    if let Some((user, group)) = account {
        chown(&data, Some(user), Some(group))?;
    }
    let run_as = |mut command: Command| {
        if let Some((user, group)) = account {
            command.uid(user).gid(group);
        }
        command.current_dir(&data);
        command
    };
    let mut make = run_as(command("initdb")?);
    make.args(["--username=events", "--auth=trust", "--encoding=UTF8", "--locale=C", "-D"]).arg(&data);
    let made = make.stdin(Stdio::null()).output()?;
    if !made.status.success() {
        return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)).into());
    }
    let port = free_port()?;
    let mut serve = run_as(command("postgres")?);
    serve.arg("-D").arg(&data).args(["-p", &port.to_string()]);
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "wal_level=logical"] {
        serve.args(["-c", setting]);
    }
    let server = Server::start(&mut serve, folder, port)?;
    let address = format!("host=127.0.0.1 port={port} user=events dbname=postgres");
    // Its port answers before it takes anybody.
    let mut client = until(|| Ok(Client::connect(&address, NoTls)?))?;
    client.batch_execute("CREATE TABLE events(id bigserial PRIMARY KEY, body text)")?;
    client.execute("SELECT pg_create_logical_replication_slot('reader', 'test_decoding')", &[])?;
    let insert = client.prepare("INSERT INTO events(body) SELECT unnest($1::text[])")?;
    Ok(Box::new(Postgres { client, insert, server }))
}

/// PostgreSQL refuses to run as root; then it runs as the user that its package makes.
fn account(folder: &Path) -> Result<Option<(u32, u32)>> {
    if folder.metadata()?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields =
        line.ok_or("there is no user postgres; Debian's postgresql makes it")?.split(':').skip(2);
    let mut number =
        || fields.next().and_then(|field| field.parse().ok()).ok_or("/etc/passwd is not readable");
    // The server must be able to reach its folder.
    for above in folder.ancestors().take(2) {
        fs::set_permissions(above, fs::Permissions::from_mode(0o755))?;
    }
    Ok(Some((number()?, number()?)))
}

struct Postgres {
    /// Goes before its server.
    client: Client,
    insert: Statement,
    server: Server,
}

impl Peer for Postgres {
    fn append(&mut self, batch: &[Event]) -> Result<()> {
        let bodies: Vec<&str> = batch.iter().map(|event| event.body.as_str()).collect();
        self.client.execute(&self.insert, &[&bodies])?;
        Ok(())
    }

    fn read(&mut self, visit: &mut dyn FnMut(&[u8])) -> Result<Option<u64>> {
        let select = format!("SELECT data FROM pg_logical_slot_get_changes('reader', NULL, {PAGE})");
        let mut count = 0;
        loop {
            let rows = self.client.query(&select, &[])?;
            if rows.is_empty() {
                return Ok(Some(count));
            }
            for row in rows {
                let data: &str = row.get(0);
                // Beside the rows there are BEGIN and COMMIT.
                if data.starts_with("table ") {
                    visit(data.as_bytes());
                    count += 1;
                }
            }
        }
    }

    fn server_cpu(&self) -> Duration {
        self.server.cpu()
    }

    /// Of the table and its index; of the write-ahead log only what is not decoded yet has to stay.
    fn bytes(&mut self) -> Result<u64> {
        let bytes: i64 = self.client.query_one("SELECT pg_total_relation_size('events')", &[])?.get(0);
        Ok(u64::try_from(bytes)?)
    }
}
