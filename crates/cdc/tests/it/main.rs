//! The engine from outside: hierarchies, restarts, stages, consumers, attached databases.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod attached;
mod density;
mod draining;
mod durability;
mod failures;
mod full_disk;
mod granting;
mod hierarchy;
mod remote;
mod retention;
mod settings;
mod sharing;
#[path = "../../../cdc-log/tests/it/small_disk.rs"]
#[expect(dead_code, reason = "tests of other crates fill it by hand")]
mod small_disk;

use cdc::{Cdc, Object, Record};
use futures_util::TryStreamExt;

pub(crate) const CUSTOMERS: &str =
    "CREATE TABLE IF NOT EXISTS customers(id INTEGER PRIMARY KEY, name TEXT, tier TEXT)";

pub(crate) async fn open(folder: &std::path::Path) -> Cdc {
    Cdc::builder(folder).archive("file:./warehouse").open().await.unwrap()
}

/// startups.studio ← headless.ly ← crm.headless.ly ← two tenants.
pub(crate) async fn family(cdc: &Cdc) -> (Object, Vec<Object>) {
    let root = cdc.object("https://startups.studio").open().await.unwrap();
    let startup = cdc.object("https://headless.ly").context(root.id()).open().await.unwrap();
    let saas = cdc.object("https://crm.headless.ly").context(startup.id()).open().await.unwrap();
    let mut tenants = Vec::new();
    for name in ["acme", "globex"] {
        let tenant = cdc.object(format!("https://crm.headless.ly/{name}")).context(saas.id());
        tenants.push(tenant.migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap());
    }
    (root, tenants)
}

pub(crate) async fn everything(object: &Object) -> Vec<Record> {
    let batches: Vec<_> =
        object.reader().await.unwrap().replay().with_schema_changes().stream().try_collect().await.unwrap();
    batches.into_iter().flat_map(|batch| batch.records).collect()
}
