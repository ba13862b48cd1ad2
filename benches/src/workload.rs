//! What the benchmarks store: contacts of a CRM, the same for the same seed.

use std::sync::Arc;

use cdc_model::{
    Batch, Body, ChangeBody, Epoch, ObjectId, Operation, Origin, Position, Record, Sequence, Timestamp,
};
use rusqlite::types::Value;
use serde_json::value::RawValue;

use crate::Result;

/// 2024-01-15 00:00 UTC, so that a run of rows lies in one day.
const EPOCH_MS: i64 = 1_705_276_800_000;

/// A small seeded generator (SplitMix64): fast, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator with this seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u32) -> u32 {
        u32::try_from(self.draw() % u64::from(end)).unwrap_or_default()
    }

    fn pick(&mut self, words: &[&'static str]) -> &'static str {
        let len = u32::try_from(words.len()).unwrap_or(1);
        let at = usize::try_from(self.below(len)).unwrap_or_default();
        words.get(at).copied().unwrap_or_default()
    }
}

const FIRST: [&str; 8] = ["Ada", "Grace", "Alan", "Edsger", "Barbara", "Dennis", "Margaret", "Ken"];
const LAST: [&str; 8] =
    ["Lovelace", "Hopper", "Turing", "Dijkstra", "Liskov", "Ritchie", "Hamilton", "Thompson"];
const TIERS: [&str; 4] = ["free", "starter", "pro", "enterprise"];
const COMPANIES: [&str; 6] =
    ["Initech", "Globex", "Hooli", "Umbrella", "Stark Industries", "Acme Corporation"];
const CITIES: [&str; 6] = ["Amsterdam", "Berlin", "Chicago", "Lagos", "São Paulo", "Tokyo"];
const COUNTRIES: [&str; 6] = ["NL", "DE", "US", "NG", "BR", "JP"];
const STAGES: [&str; 5] = ["lead", "qualified", "proposal", "won", "lost"];
const SOURCES: [&str; 4] = ["website", "referral", "conference", "import"];
const NOTES: [&str; 4] = [
    "Asked for a quote for 40 seats; follow up next week.",
    "Met at the conference; wants to see the \"export\" feature.",
    "Renewal due in the spring. Talks to two competitors as well.",
    "Prefers e-mail. Time zone is nine hours ahead.",
];

/// Name and declared type of the columns of the widest table, the key first.
const COLUMNS: [(&str, &str); 20] = [
    ("id", "INTEGER PRIMARY KEY"),
    ("name", "TEXT"),
    ("tier", "TEXT"),
    ("email", "TEXT"),
    ("company", "TEXT"),
    ("owner", "TEXT"),
    ("updated_at", "INTEGER"),
    ("mrr", "REAL"),
    ("phone", "TEXT"),
    ("city", "TEXT"),
    ("country", "TEXT"),
    ("stage", "TEXT"),
    ("source", "TEXT"),
    ("seats", "INTEGER"),
    ("score", "REAL"),
    ("created_at", "INTEGER"),
    ("last_contact", "INTEGER"),
    ("subscribed", "INTEGER"),
    ("tags", "TEXT"),
    ("notes", "TEXT"),
];

/// The table `customers` with its first few columns or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    columns: usize,
    text_key: bool,
}

impl Shape {
    /// Three columns: id, name, tier.
    #[must_use]
    pub const fn narrow() -> Self {
        Self { columns: 3, text_key: false }
    }

    /// Eight columns; its events have about 300 bytes.
    #[must_use]
    pub const fn medium() -> Self {
        Self { columns: 8, text_key: false }
    }

    /// Twenty columns of all storage classes but BLOB.
    #[must_use]
    pub const fn wide() -> Self {
        Self { columns: COLUMNS.len(), text_key: false }
    }

    /// The same with a text key, which is a second index to keep.
    #[must_use]
    pub const fn with_text_key(self) -> Self {
        Self { text_key: true, ..self }
    }

    /// How many columns it has.
    #[must_use]
    pub const fn columns(self) -> usize {
        self.columns
    }

    /// The statement that makes the table.
    #[must_use]
    pub fn create(self) -> String {
        let columns: Vec<String> = self.named().map(|(name, kind)| format!("{name} {kind}")).collect();
        let columns = columns.join(", ");
        let columns = if self.text_key { columns.replacen("INTEGER", "TEXT", 1) } else { columns };
        format!("CREATE TABLE IF NOT EXISTS customers({columns})")
    }

    fn insert(self) -> String {
        format!("INSERT INTO customers VALUES ({})", placeholders(self.columns))
    }

    fn update(self) -> String {
        let set: Vec<String> =
            self.changing().zip(2..).map(|((name, _), at)| format!("{name} = ?{at}")).collect();
        format!("UPDATE customers SET {} WHERE id = ?1", set.join(", "))
    }

    /// The statement of one operation.
    #[must_use]
    pub fn sql(self, operation: Operation) -> String {
        match operation {
            Operation::Insert => self.insert(),
            Operation::Update => self.update(),
            Operation::Delete => "DELETE FROM customers WHERE id = ?1".to_owned(),
        }
    }

    /// `count` statements with what they bind, five inserts, four updates, one delete, and so on. Rows are numbered
    /// after `number`, which moves on.
    #[must_use]
    pub fn statements(self, rng: &mut Rng, number: &mut u32, count: u32) -> Vec<(Operation, Vec<Value>)> {
        let mut recent: Vec<Vec<Value>> = Vec::new();
        let mut statements = Vec::new();
        for at in 0..count {
            let updated = usize::try_from((at % 10).saturating_sub(5)).unwrap_or_default();
            statements.push(match (at % 10, recent.get(updated)) {
                (5..9, Some(row)) => (Operation::Update, self.changes(rng, row, *number)),
                (9, Some(_)) => {
                    let key = recent.first().and_then(|row| row.first()).cloned();
                    recent.clear();
                    (Operation::Delete, key.into_iter().collect())
                }
                _ => {
                    *number += 1;
                    let row = self.row(rng, *number);
                    recent.push(row.clone());
                    (Operation::Insert, row)
                }
            });
        }
        statements
    }

    /// The values of row number `number`.
    #[must_use]
    pub fn row(self, rng: &mut Rng, number: u32) -> Vec<Value> {
        self.named().map(|(name, _)| self.value(rng, name, number)).collect()
    }

    /// What an update binds: the key of `row` and new values.
    #[must_use]
    pub fn changes(self, rng: &mut Rng, row: &[Value], number: u32) -> Vec<Value> {
        let new = self.changing().map(|(name, _)| self.value(rng, name, number));
        row.first().cloned().into_iter().chain(new).collect()
    }

    /// The row after these changes.
    #[must_use]
    pub fn changed(self, row: &[Value], changes: &[Value]) -> Vec<Value> {
        let new = |name: &str| {
            let at = self.changing().position(|(changing, _)| changing == name)?;
            changes.get(at + 1).cloned()
        };
        self.named().zip(row).map(|((name, _), old)| new(name).unwrap_or_else(|| old.clone())).collect()
    }

    /// The row as a JSON document.
    #[must_use]
    pub fn document(self, row: &[Value]) -> serde_json::Value {
        let member = |((name, _), value): ((&'static str, _), &Value)| (name.to_owned(), json(value));
        serde_json::Value::Object(self.named().zip(row).map(member).collect())
    }

    /// The names of its columns.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        self.named().map(|(name, _)| name)
    }

    fn named(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        COLUMNS.into_iter().take(self.columns)
    }

    /// A change of plan: the tier, and of wider tables who did it and when.
    fn changing(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.named().filter(|(name, _)| ["tier", "owner", "updated_at"].contains(name))
    }

    fn value(self, rng: &mut Rng, column: &str, number: u32) -> Value {
        let text = |text: &str| Value::Text(text.to_owned());
        let time = |rng: &mut Rng| Value::Integer(EPOCH_MS + i64::from(rng.below(86_400_000)));
        match column {
            "id" if self.text_key => Value::Text(format!("cus_{number:012}")),
            "id" => Value::Integer(i64::from(number)),
            "name" => Value::Text(format!("{} {}", rng.pick(&FIRST), rng.pick(&LAST))),
            "tier" => text(rng.pick(&TIERS)),
            "email" => Value::Text(format!("{}.{number}@example.com", rng.pick(&LAST).to_lowercase())),
            "company" => text(rng.pick(&COMPANIES)),
            "owner" => Value::Text(format!("user_{:08x}", rng.below(200) * 7919)),
            "mrr" | "score" => Value::Real(f64::from(rng.below(1_000_000)) / 100.0),
            "phone" => Value::Text(format!("+1 555 {:07}", rng.below(10_000_000))),
            "city" => text(rng.pick(&CITIES)),
            "country" => text(rng.pick(&COUNTRIES)),
            "stage" => text(rng.pick(&STAGES)),
            "source" => text(rng.pick(&SOURCES)),
            "seats" => Value::Integer(i64::from(rng.below(500))),
            "subscribed" => Value::Integer(i64::from(rng.below(2))),
            "tags" => Value::Text(format!("[\"{}\",\"{}\"]", rng.pick(&STAGES), rng.pick(&SOURCES))),
            "notes" if rng.below(3) == 0 => Value::Null,
            "notes" => text(rng.pick(&NOTES)),
            _ => time(rng),
        }
    }
}

/// `?, ?, …`
pub(crate) fn placeholders(count: usize) -> String {
    vec!["?"; count].join(", ")
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null | Value::Blob(_) => serde_json::Value::Null,
        Value::Integer(number) => (*number).into(),
        Value::Real(number) => (*number).into(),
        Value::Text(text) => text.as_str().into(),
    }
}

/// An object of the fleet.
///
/// # Errors
///
/// None with the names used here.
pub fn object(name: &str) -> Result<ObjectId> {
    Ok(format!("https://crm.headless.ly/{name}").parse()?)
}

/// The origin of the events of tenant `number`, as its parent records it.
///
/// # Errors
///
/// None.
pub fn origin(number: u32) -> Result<Arc<Origin>> {
    let id = object(&format!("tenant-{number:04}"))?;
    let epoch = Epoch { number: 1, nonce: u64::from(number) };
    Ok(Origin::new(id.clone(), epoch, vec![id]))
}

/// What `count` events say: half of them new contacts, the others updates and some deletes; about 300 bytes each.
///
/// # Errors
///
/// None.
pub fn bodies(rng: &mut Rng, count: u32) -> Result<Vec<Body>> {
    (0..count).map(|number| body(rng, number)).collect()
}

fn body(rng: &mut Rng, number: u32) -> Result<Body> {
    let shape = Shape::medium();
    let row = shape.row(rng, number);
    let raw = |text: serde_json::Value| RawValue::from_string(text.to_string());
    let state = raw(shape.document(&row))?;
    let was = raw(serde_json::json!({"tier": "trial", "updated_at": EPOCH_MS - 1}))?;
    let id = number.to_string();
    let change = |operation| ChangeBody::new(operation, "customers", id.as_str());
    let body = match rng.below(10) {
        0..5 => ChangeBody { after: Some(&state), ..change(Operation::Insert) },
        5..9 => ChangeBody {
            changed_fields: Some(vec!["tier".into(), "updated_at".into()]),
            was: Some(&was),
            after: Some(&state),
            ..change(Operation::Update)
        },
        _ => ChangeBody { before: Some(&state), ..change(Operation::Delete) },
    };
    Ok(ChangeBody { schema_version: Some(1), ..body }.to_body())
}

/// The time of the row with this sequence: one millisecond after the one before.
pub(crate) fn time_of(sequence: Sequence) -> Timestamp {
    Timestamp::new(EPOCH_MS.saturating_add(sequence.as_i64()))
}

/// The log of a parent with so many tenants, in consecutive batches.
#[derive(Clone, Debug)]
pub struct Batches {
    id: ObjectId,
    epoch: Epoch,
    origins: Vec<Arc<Origin>>,
    at: Position,
    rng: Rng,
}

impl Batches {
    /// From the first row of the log of `id`, which has a hundred tenants.
    ///
    /// # Errors
    ///
    /// None.
    pub fn new(id: &ObjectId, epoch: Epoch) -> Result<Self> {
        Self::with_origins(id, epoch, 100)
    }

    /// As [`Batches::new`] with so many tenants, whose events take turns.
    ///
    /// # Errors
    ///
    /// None.
    pub fn with_origins(id: &ObjectId, epoch: Epoch, origins: u32) -> Result<Self> {
        let origins = (1..=origins).map(origin).collect::<Result<_>>()?;
        Ok(Self { id: id.clone(), epoch, origins, at: Position::START, rng: Rng::new(1) })
    }

    /// The next `count` rows.
    ///
    /// # Errors
    ///
    /// None.
    pub fn next(&mut self, count: u32) -> Result<Batch> {
        let after = self.at;
        let mut records = Vec::new();
        for body in bodies(&mut self.rng, count)? {
            let sequence = self.at.sequence.next();
            let origins = u64::try_from(self.origins.len())?.max(1);
            let origin = self.origins.get(usize::try_from(sequence.get() % origins)?).ok_or("no origin")?;
            let record = Record {
                sequence,
                timestamp: time_of(sequence),
                epoch: self.epoch,
                origin: Arc::clone(origin),
                origin_sequence: Sequence::new(sequence.get() / origins + 1),
                origin_timestamp: time_of(sequence),
                body,
            };
            self.at = Position { sequence, digest: record.digest(self.at.digest) };
            records.push(record);
        }
        Ok(Batch {
            sender: self.id.clone(),
            generation: 1,
            epoch: self.epoch,
            after,
            through: self.at,
            records,
            kept_back: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bodies_are_canonical_and_have_about_300_bytes() {
        let bodies = bodies(&mut Rng::new(3), 1000).unwrap();
        let bytes: usize = bodies.iter().map(|body| body.as_str().len()).sum();
        assert!((250_000..350_000).contains(&bytes), "{bytes}");
        for body in bodies {
            assert_eq!(body.columns().unwrap().to_body().unwrap(), body);
        }
    }

    #[test]
    fn an_update_changes_what_its_statement_says() {
        let conn = rusqlite::Connection::open_in_memory().unwrap();
        let (shape, mut rng) = (Shape::wide(), Rng::new(5));
        conn.execute_batch(&shape.create()).unwrap();
        let row = shape.row(&mut rng, 1);
        let changes = shape.changes(&mut rng, &row, 1);
        conn.execute(&shape.insert(), rusqlite::params_from_iter(&row)).unwrap();
        conn.execute(&shape.update(), rusqlite::params_from_iter(&changes)).unwrap();
        let read =
            |at| conn.query_row("SELECT * FROM customers", [], |found| found.get::<_, Value>(at)).unwrap();
        let stored: Vec<Value> = (0..shape.columns()).map(read).collect();
        assert_eq!(stored, shape.changed(&row, &changes));
        assert_ne!(stored, row);
    }
}
