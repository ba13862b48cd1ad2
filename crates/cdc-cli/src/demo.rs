//! `cdc demo`: the whole path on one machine in a few seconds, checked at the end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cdc::{Cdc, Deadline, Env as _, Object, ObjectId, Operation, Record, Settings, Tokio, Tx, params};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

/// Tenants whose application writes at the same time.
const WRITERS: usize = 8;

/// Changes in one transaction of the demo's application at most.
const CHANGES_PER_WRITE: u64 = 20;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS customers(id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE, tier TEXT, spent REAL);
CREATE TABLE IF NOT EXISTS notes(customer INTEGER, number INTEGER, text TEXT, PRIMARY KEY(customer, number)) WITHOUT ROWID;
";

/// What the demo is told.
#[derive(Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Its folder; empty or missing.
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    /// Tenants.
    pub(crate) objects: u64,
    /// Events per tenant.
    pub(crate) events: u64,
}

/// What the demo has to say.
#[derive(Debug)]
pub(crate) struct DemoReport {
    /// The tables, the story and the lines to copy.
    pub(crate) text: String,
    /// The root of the hierarchy.
    pub(crate) root: ObjectId,
    /// The first difference between the live tables and the history; `None` when all agree.
    pub(crate) difference: Option<String>,
}

/// Runs the demo. `say` hears what is going on.
pub(crate) async fn demo(options: &DemoOptions, say: impl Fn(&str)) -> cdc::Result<DemoReport> {
    let env = Tokio::current();
    let cdc = Cdc::builder_in(&options.folder, env.clone()).settings(options.settings.clone()).open().await?;
    say("building startups.studio <- headless.ly <- crm.headless.ly and its tenants");
    let root = cdc.object("https://startups.studio").open().await?;
    let startup = cdc.object("https://headless.ly").context(root.id()).open().await?;
    let saas = cdc.object("https://crm.headless.ly").context(startup.id()).open().await?;
    let tenants = open_tenants(&cdc, saas.id(), options.objects).await?;

    say(&format!("writing {} changes by SQL in each of {} tenants", options.events, tenants.len()));
    let begun = env.now();
    let write = |(seed, tenant): (usize, Object)| run_application(tenant, seed, options.events);
    stream::iter(tenants.iter().cloned().enumerate())
        .map(write)
        .buffer_unordered(WRITERS)
        .try_collect::<Vec<()>>()
        .await?;
    let written = env.now();
    say("waiting until the root has stored everything and the archive holds it");
    cdc.quiet().await?;
    let quiet = env.now();

    say("replaying archive and log, folding, comparing with the live tables");
    let records: Vec<Record> = root
        .reader()
        .await?
        .replay()
        .stream()
        .map_ok(|batch| stream::iter(batch.records.into_iter().map(Ok::<Record, cdc::Error>)))
        .try_flatten()
        .try_collect()
        .await?;
    let replayed = env.now();
    let folded = Arc::new(root.reader().await?.replay().fold().await?);
    let mut difference = None;
    for tenant in &tenants {
        if let Some(row) = tenant.compare_rows(folded.documents.clone()).await? {
            difference.get_or_insert(format!("{}: {row}", tenant.id().short()));
        }
    }
    let mut levels = Vec::new();
    for (name, objects) in [
        ("tenants", tenants.clone()),
        ("crm.headless.ly", vec![saas]),
        ("headless.ly", vec![startup]),
        ("startups.studio", vec![root.clone()]),
    ] {
        let cursors = try_join_all(objects.iter().map(Object::cursor)).await?;
        levels.push((name, objects.len(), cursors.iter().map(|cursor| cursor.sequence.get()).sum::<u64>()));
    }
    let archive = root.reader().await?.archive_status().await?;
    let mut text = String::new();
    let numbers = Numbers { written: written - begun, quiet: quiet - begun, replayed: replayed - quiet };
    summary(&mut text, &levels, &records, archive.as_ref(), &numbers);
    match &difference {
        None => {
            writeln!(text, "verified: {} documents of the fold equal the live tables", folded.documents.len())
        }
        Some(row) => writeln!(text, "NOT VERIFIED: {row}"),
    }
    .unwrap_or_default();
    story(&mut text, &records)?;
    next_steps(&mut text, &options.folder, &records);
    cdc.shutdown(Deadline::secs(10)).await?;
    Ok(DemoReport { text, root: root.id().clone(), difference })
}

async fn open_tenants(cdc: &Cdc, parent: &ObjectId, count: u64) -> cdc::Result<Vec<Object>> {
    const NAMES: [&str; 8] = ["acme", "globex", "initech", "umbrella", "hooli", "stark", "wayne", "wonka"];
    let mut tenants = Vec::new();
    for (number, name) in (0..count).zip(NAMES.into_iter().cycle()) {
        let round = number / 8;
        let id = if round == 0 { format!("{parent}/{name}") } else { format!("{parent}/{name}-{round}") };
        tenants.push(
            cdc.object(id).context(parent).migrate(TABLES).capture(["customers", "notes"]).open().await?,
        );
    }
    Ok(tenants)
}

/// The tenant's application: it knows SQL and nothing of events.
async fn run_application(tenant: Object, seed: usize, events: u64) -> cdc::Result<()> {
    let mut random = u64::try_from(seed).unwrap_or_default() + 1;
    let mut done = 0;
    while done < events {
        let changes = (events - done).min(CHANGES_PER_WRITE);
        let from = done;
        random = tenant
            .write(move |tx| {
                let mut random = random;
                for number in from..from + changes {
                    random = next_random(random);
                    change_one_row(tx, number, random)?;
                }
                Ok(random)
            })
            .await?;
        done += changes;
    }
    Ok(())
}

/// Exactly one row changes: an insert, or an update or deletion of an earlier row if there is one.
fn change_one_row(tx: &Tx<'_>, number: u64, random: u64) -> cdc::Result<()> {
    const TIERS: [&str; 3] = ["free", "pro", "business"];
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let earlier = i64::try_from(random >> 8).unwrap_or_default() % (number + 1);
    let tier =
        TIERS.into_iter().cycle().nth(usize::try_from(random % 3).unwrap_or_default()).unwrap_or("free");
    let changed = match random % 10 {
        0..=3 => 0,
        4..=7 => tx.execute(
            "UPDATE customers SET tier = ?2, spent = spent + 9.5 WHERE id = (SELECT min(id) FROM customers WHERE id >= ?1)",
            params![earlier, tier],
        )?,
        8 => tx.execute("DELETE FROM customers WHERE id = (SELECT min(id) FROM customers WHERE id >= ?1)", [earlier])?,
        _ => tx.execute("INSERT INTO notes VALUES (?1, ?2, 'called back, wants an offer')", [earlier, number])?,
    };
    if changed == 0 {
        let (name, email) = (format!("Customer {number}"), format!("c{number}@example.com"));
        tx.execute("INSERT INTO customers VALUES (?1, ?2, ?3, ?4, 0.0)", params![number, name, email, tier])?;
    }
    Ok(())
}

/// One step of SplitMix64.
const fn next_random(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 27)
}

struct Numbers {
    written: Duration,
    quiet: Duration,
    replayed: Duration,
}

fn summary(
    text: &mut String,
    levels: &[(&str, usize, u64)],
    records: &[Record],
    archive: Option<&cdc::ArchiveStatus>,
    numbers: &Numbers,
) {
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    line(format_args!("level             objects   records   hops"));
    for (hops, (name, objects, count)) in levels.iter().enumerate() {
        line(format_args!("{name:<16} {objects:>8} {count:>9} {hops:>6}"));
    }
    let mut latency: Vec<i64> =
        records.iter().map(|record| record.timestamp.get() - record.origin_timestamp.get()).collect();
    latency.sort_unstable();
    let percentile = |percent: usize| latency.get(latency.len() * percent / 100).copied().unwrap_or_default();
    let events = u64::try_from(records.len()).unwrap_or(u64::MAX);
    line(format_args!(""));
    line(format_args!("written           {:>9} events/s", rate(events, numbers.written)));
    line(format_args!("leaf to archive   {:>9} events/s", rate(events, numbers.quiet)));
    line(format_args!("replayed          {:>9} events/s", rate(events, numbers.replayed)));
    line(format_args!(
        "leaf to root      {:>9} ms p50, {} ms p99, under full load",
        percentile(50),
        percentile(99)
    ));
    if let Some(archive) = archive {
        let per_event = archive.bytes.checked_div(archive.rows).unwrap_or_default();
        let (rows, files, bytes) = (archive.rows, archive.files, archive.bytes);
        line(format_args!(
            "archive           {rows:>9} rows in {files} Parquet files, {bytes} bytes, {per_event} per event"
        ));
    }
}

fn rate(events: u64, took: Duration) -> u64 {
    u128::from(events)
        .saturating_mul(1000)
        .checked_div(took.as_millis().max(1))
        .map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

/// The history of the row that changed most.
fn story(text: &mut String, records: &[Record]) -> cdc::Result<()> {
    let Some((source, id)) = busiest(records)? else { return Ok(()) };
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    line(format_args!("\nThe story of customers/{id} in {}:", source.short()));
    for record in records.iter().filter(|record| *record.origin.source() == source) {
        let Some(event) = record.event::<Value>()? else { continue };
        if event.collection != "customers" || event.document_id != id {
            continue;
        }
        let what = match event.change.operation() {
            Operation::Insert => event.change.after().map(ToString::to_string).unwrap_or_default(),
            Operation::Update => diff(&event.change),
            Operation::Delete => String::from("gone"),
        };
        line(format_args!("  {} {:<6} {what}", event.timestamp, event.change.operation()));
    }
    Ok(())
}

fn diff(change: &cdc::EventChange<Value>) -> String {
    let (before, after) = (change.before(), change.after());
    let state = |row: Option<&Value>, field: &str| {
        row.and_then(|row| row.get(field)).map_or_else(|| "nothing".to_owned(), ToString::to_string)
    };
    let fields = change.changed_fields().iter();
    fields
        .map(|field| format!("{field}: {} → {}", state(before, field), state(after, field)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn busiest(records: &[Record]) -> cdc::Result<Option<(ObjectId, String)>> {
    let mut updates: BTreeMap<(ObjectId, String), u32> = BTreeMap::new();
    for record in records {
        let Some(change) = record.body.change()? else { continue };
        if change.collection == "customers" && change.operation == Operation::Update {
            *updates.entry((record.origin.source().clone(), change.document_id.into_owned())).or_default() +=
                1;
        }
    }
    Ok(updates.into_iter().max_by_key(|(_, count)| (*count).min(5)).map(|(row, _)| row))
}

fn next_steps(text: &mut String, folder: &Path, records: &[Record]) {
    let folder = folder.display();
    let tenant = records.last().map_or("crm.headless.ly/acme", |record| record.origin.source().short());
    let mut line = |line: std::fmt::Arguments<'_>| writeln!(text, "{line}").unwrap_or_default();
    line(format_args!("\nTry next:"));
    line(format_args!("  cdc --dir {folder} tree"));
    line(format_args!(
        "  cdc --dir {folder} replay startups.studio --source {tenant} --operation update | head -3"
    ));
    line(format_args!("  cdc --dir {folder} verify --rows"));
    line(format_args!(
        "  duckdb -c \"INSTALL iceberg; LOAD iceberg; SET unsafe_enable_version_guessing = true; SELECT source, operation, \
         count(*) FROM iceberg_scan('{folder}/warehouse/tables/startups.studio') GROUP BY ALL ORDER BY ALL\""
    ));
}
