//! A tree of four levels: many tenants below a few products below two companies below one root.

use std::fs;
use std::path::Path;
use std::time::Duration;

use cdc::{ArchiveSettings, Cdc, Deadline, Env as _, Object, ObjectId, Settings, Tokio};
use cdc_model::Operation;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rusqlite::params_from_iter;

use crate::{Cost, Result, Rng, Shape, Stopwatch, cpu_time, replay};

/// Levels of objects; an event is stored in each and makes one hop less.
const LEVELS: u32 = 4;

/// Objects between the root and the tenants, per level.
const COMPANIES: u32 = 2;
const PRODUCTS: u32 = 10;

/// Tenants that write at the same time.
const WRITERS: usize = 16;

/// Rows in one transaction of a tenant.
const TRANSACTION: u32 = 100;

/// The pause before each single event on the quiet tree.
const PACE: Duration = Duration::from_millis(20);

/// How large the tree is.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// Objects at the lowest level.
    pub tenants: u32,
    /// Events that each of them writes.
    pub events: u32,
    /// Single events afterwards, whose way up is timed.
    pub paced: u32,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct TreeResult {
    /// Events that the tenants' statements made.
    pub events: u32,
    /// Hops that each event makes.
    pub hops: u32,
    /// Making and opening all objects.
    pub opening: Cost,
    /// From the first statement until the root has stored everything.
    pub stored: Cost,
    /// From the first statement until everything is archived, too.
    pub archived: Cost,
    /// Bytes of the root's database per row of its log.
    pub hot_bytes: f64,
    /// Bytes of data files per row of the archive.
    pub cold_bytes: f64,
    /// Of single events, from before the tenant's write until the tenant's side knows that the root has stored it;
    /// ascending.
    pub latencies: Vec<Duration>,
}

impl TreeResult {
    /// The latency that this many per cent of the single events did not exceed.
    #[must_use]
    pub fn latency(&self, per_cent: usize) -> Duration {
        let at = (self.latencies.len() * per_cent).div_ceil(100).saturating_sub(1);
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// The tree to be measured.
#[derive(Clone, Copy, Debug)]
pub struct Tree(TreeOptions);

impl Tree {
    /// A tree of this size.
    #[must_use]
    pub const fn new(options: TreeOptions) -> Self {
        Self(options)
    }

    /// Builds the tree in a temporary folder, writes everything and waits for it, then times single events.
    ///
    /// # Errors
    ///
    /// Whatever the engine meets, and when an event is missing at the root or in the archive.
    pub fn run(self) -> Result<TreeResult> {
        let folder = tempfile::tempdir()?;
        let runtime = replay::runtime()?;
        runtime.block_on(self.run_in(folder.path()))
    }

    async fn run_in(self, folder: &Path) -> Result<TreeResult> {
        let archive = Some(ArchiveSettings::new("file:./warehouse"));
        let settings = Settings { archive, ..Settings::default() };
        let cdc = Cdc::builder(folder).settings(settings).open().await?;
        let started = Started::now();
        let (root, tenants) = self.open(&cdc).await?;
        let opening = started.cost();

        let before = root.cursor().await?.sequence;
        let started = Started::now();
        let writes = tenants.iter().zip(1..).map(|(tenant, seed)| self.write(tenant, seed));
        stream::iter(writes).buffer_unordered(WRITERS).try_collect::<()>().await?;
        for tenant in &tenants {
            tenant.flush().await?;
        }
        let stored = started.cost();
        cdc.quiet().await?;
        let archived = started.cost();
        let forwarded = root.cursor().await?.sequence.since(before);
        let events = self.0.tenants * self.0.events;
        if forwarded != u64::from(events) {
            return Err(format!("the root stored {forwarded} events instead of {events}").into());
        }

        let status = root.reader().await?.archive_status().await?.ok_or("there is no archive")?;
        if status.rows < u64::from(events) {
            return Err(format!("the archive holds {} of {events} events", status.rows).into());
        }
        let latencies = self.pace(&tenants).await?;
        let rows = root.cursor().await?.sequence.get();
        let root = root.id().clone();
        cdc.shutdown(Deadline::secs(60)).await?;
        Ok(TreeResult {
            events,
            hops: LEVELS - 1,
            opening,
            stored,
            archived,
            hot_bytes: per(bytes_of(folder, &root)?, rows)?,
            cold_bytes: per(status.bytes, status.rows)?,
            latencies,
        })
    }

    async fn open(self, cdc: &Cdc) -> Result<(Object, Vec<Object>)> {
        let root = cdc.object("https://startups.studio").open().await?;
        let (mut companies, mut products, mut tenants) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..COMPANIES {
            let company = cdc.object(format!("https://company-{number}.ly")).context(root.id());
            companies.push(company.open().await?);
        }
        for (number, company) in (0..PRODUCTS).zip(companies.iter().cycle()) {
            let product = cdc.object(format!("https://product-{number}.ly")).context(company.id());
            products.push(product.open().await?);
        }
        for (number, product) in (0..self.0.tenants).zip(products.iter().cycle()) {
            let tenant = cdc.object(format!("{}/tenant-{number:04}", product.id())).context(product.id());
            let tenant = tenant.migrate(Shape::medium().create()).capture(["customers"]);
            let tenant = tenant.open().await?;
            // The schema's record goes up before the measurement.
            tenant.flush().await?;
            tenants.push(tenant);
        }
        Ok((root, tenants))
    }

    async fn write(self, tenant: &Object, seed: u64) -> Result<()> {
        let (mut rng, mut number, mut left) = (Rng::new(seed), 0, self.0.events);
        while left > 0 {
            let count = left.min(TRANSACTION);
            write(tenant, Shape::medium().statements(&mut rng, &mut number, count)).await?;
            left -= count;
        }
        Ok(())
    }

    async fn pace(self, tenants: &[Object]) -> Result<Vec<Duration>> {
        let (env, mut rng) = (Tokio::current(), Rng::new(23));
        let mut latencies = Vec::new();
        for at in 0..self.0.paced {
            env.sleep(PACE).await;
            let tenant = tenants.get(usize::try_from(rng.below(self.0.tenants))?).ok_or("no tenant")?;
            let mut number = 1_000_000 + at;
            let statements = Shape::medium().statements(&mut rng, &mut number, 1);
            let watch = Stopwatch::start();
            write(tenant, statements).await?;
            tenant.flush().await?;
            latencies.push(watch.elapsed());
        }
        latencies.sort();
        Ok(latencies)
    }
}

async fn write(tenant: &Object, statements: Vec<(Operation, Vec<rusqlite::types::Value>)>) -> Result<()> {
    let sql = |operation| Shape::medium().sql(operation);
    let run = move |tx: &cdc::Tx<'_>| {
        for (operation, bound) in &statements {
            tx.execute(&sql(*operation), params_from_iter(bound))?;
        }
        Ok(())
    };
    Ok(tenant.write(run).await?)
}

struct Started {
    cpu: Option<Duration>,
    watch: Stopwatch,
}

impl Started {
    fn now() -> Self {
        Self { cpu: cpu_time(), watch: Stopwatch::start() }
    }

    fn cost(&self) -> Cost {
        let wall = self.watch.elapsed();
        let spent = self.cpu.zip(cpu_time()).map(|(before, after)| after.saturating_sub(before));
        Cost { cpu: spent.unwrap_or(wall), wall }
    }
}

/// The bytes of the files of one object, after its log was closed.
fn bytes_of(folder: &Path, object: &ObjectId) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder.join(cdc::object_folder(object)))? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn per(bytes: u64, rows: u64) -> Result<f64> {
    Ok(f64::from(u32::try_from(bytes)?) / f64::from(u32::try_from(rows.max(1))?))
}
