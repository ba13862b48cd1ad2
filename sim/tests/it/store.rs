//! Archives over a simulated store that fails, read back by the oracle.

mod damage;
mod log;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cdc_iceberg::{Archive, Components, Error, Settings, Storage};
use cdc_model::{Clock, Entropy, Refusal, Remedy, Timestamp};
use futures_util::TryStreamExt as _;
use sim::store::{HostStore, SimStore, Steps, StoreFaults, TableOracle, Violation};

use log::{Log, acme};

pub(super) const BASE: &str = "sim://warehouse";
pub(super) const TABLE: &str = "tables/crm.headless.ly~acme";
/// A batch that is not in the table after so many attempts never will be.
const ATTEMPTS_MAX: u32 = 200;

/// A clock that ticks 250 ms per look from 2024-01-15.
fn clock() -> Clock {
    let looks = AtomicI64::new(0);
    Clock::from_fn(move || Timestamp::new(log::DAY + looks.fetch_add(1, Ordering::Relaxed) * 250))
}

/// Its own stream for each archiver of each seed.
fn entropy(seed: u64, stream: u64) -> Entropy {
    let drawn = AtomicU64::new((seed << 32) + (stream << 20));
    Entropy::from_fn(move || {
        let z = drawn.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (z >> 31)
    })
}

/// One archiver, which dies and comes back.
struct Archiver {
    lives: u32,
    host: HostStore,
    components: Components,
    archive: Option<Archive>,
    snapshots: usize,
}

impl Archiver {
    fn new(store: &SimStore, seed: u64) -> Self {
        let components = Components { clock: clock(), entropy: entropy(seed, 0) };
        Self { lives: 0, host: store.for_host(0), components, archive: None, snapshots: 100 }
    }

    fn reborn(&mut self, store: &SimStore) {
        self.lives += 1;
        self.archive = None;
        self.host = store.for_host(self.lives);
    }

    fn storage(&self) -> Storage {
        Storage::over(Arc::new(self.host.clone()), BASE)
    }

    async fn open(&mut self) -> cdc_iceberg::Result<&mut Archive> {
        if self.archive.is_none() {
            let archive = Archive::open_in(&self.storage(), &acme(), self.components.clone()).await?;
            let settings = Settings::default().with_rows_per_file_max(7).with_snapshots_kept(self.snapshots);
            self.archive = Some(archive.with_settings(settings));
        }
        Ok(self.archive.as_mut().unwrap())
    }

    /// The mark after one attempt to append the next records.
    async fn append(&mut self, log: &Log, count: usize) -> cdc_iceberg::Result<usize> {
        let archive = self.open().await?;
        let mark = archive.watermark().map_or(0, |mark| mark.sequence.as_i64());
        let from = usize::try_from(mark).unwrap();
        let through = (from + count).min(log.len());
        archive.append(&log.batch(from..through)).await?;
        Ok(through)
    }
}

/// What a failed attempt may say while the store fails: try again, or cut again.
fn assert_retryable(error: &Error, store: &SimStore) {
    let cut_again = matches!(error, Error::Refused { source: Refusal::NotAtMark { .. }, .. });
    assert!(cut_again || error.remedy() == Remedy::Retry, "{error:?}\n{}", store.story());
}

fn kept<T>(checked: Result<T, Vec<Violation>>, seed: u64, store: &SimStore) -> T {
    checked.unwrap_or_else(|violations| {
        let violations: Vec<String> = violations.iter().map(Violation::to_string).collect();
        panic!("seed {seed}: {}\n{}", violations.join("\n"), store.story())
    })
}

fn run(seed: u64, faults: StoreFaults, dies: bool) -> SimStore {
    history(seed, faults, dies, Length { rows: 60, batch: 20, snapshots: 100 })
}

#[derive(Clone, Copy)]
struct Length {
    rows: usize,
    /// Records of a batch at most.
    batch: u64,
    /// Snapshots that the table keeps.
    snapshots: usize,
}

/// So many appends that manifests are merged, and old versions and what only they name are deleted.
const LONG: Length = Length { rows: 320, batch: 2, snapshots: 5 };

/// Archives a log in random batches while the store fails, and checks the table after every attempt.
fn history(seed: u64, faults: StoreFaults, dies: bool, length: Length) -> SimStore {
    let (steps, store, log) = (Steps::new(), SimStore::new(seed, clock()), Log::of(seed, length.rows));
    store.set_faults(faults);
    let mut archiver = Archiver { snapshots: length.snapshots, ..Archiver::new(&store, seed) };
    let mut oracle = TableOracle::new(TABLE);
    let draws = entropy(seed, 99);
    let (mut rows, mut acked) = (Vec::new(), 0);
    for attempt in 0.. {
        assert!(attempt < ATTEMPTS_MAX * 10, "seed {seed}: stuck at {acked}\n{}", store.story());
        if dies && draws.u64().is_multiple_of(3) {
            archiver.host.kill_after(draws.u64() % 20);
        }
        let count = 1 + usize::try_from(draws.u64() % length.batch).unwrap();
        match steps.run(archiver.append(&log, count)) {
            Ok(through) => acked = through,
            Err(error) => assert_retryable(&error, &store),
        }
        let found = kept(oracle.check(&store), seed, &store);
        rows.extend(found.rows);
        let mark = found.watermark.map_or(0, |mark| usize::try_from(mark.sequence).unwrap());
        assert!(mark >= acked, "seed {seed}: acknowledged {acked}, archived {mark}");
        if !archiver.host.is_alive() {
            archiver.reborn(&store);
        }
        if acked == log.len() {
            break;
        }
    }
    assert_eq!(rows, log.rows(), "seed {seed}");
    assert_eq!(store.violations(), Vec::<String>::new(), "seed {seed}");
    kept(TableOracle::new(TABLE).check(&store), seed, &store);
    store
}

/// In so many of a thousand requests. The figures of one kind are of all seeds.
const RATE: u64 = 60;
const SEEDS: std::ops::Range<u64> = 0..12;

fn total(faults: StoreFaults, dies: bool, of: impl Fn(&SimStore) -> u64) -> u64 {
    SEEDS.map(|seed| of(&run(seed, faults, dies))).sum()
}

#[test]
fn without_faults_every_row_arrives() {
    for seed in 0..5 {
        let counts = run(seed, StoreFaults::NONE, false).counts();
        let failed = counts.errors + counts.lost_acks + counts.echoes + counts.throttled + counts.slow;
        assert_eq!(failed + counts.full + counts.dead, 0, "{counts:?}");
    }
}

#[test]
fn errors_are_survived() {
    let faults = StoreFaults { error: RATE, ..StoreFaults::NONE };
    assert!(total(faults, false, |store| store.counts().errors) > 20);
}

#[test]
fn lost_acknowledgements_are_survived() {
    let faults = StoreFaults { lost_ack: RATE, ..StoreFaults::NONE };
    let lost = total(faults, false, |store| store.counts().lost_acks);
    assert!(lost > 20, "only {lost} acknowledgements were lost");
}

#[test]
fn creates_that_the_client_repeated_by_itself_are_survived() {
    let faults = StoreFaults { echo: RATE, ..StoreFaults::NONE };
    let echoes = total(faults, false, |store| store.counts().echoes);
    assert!(echoes > 20, "only {echoes} creates were repeated");
}

#[test]
fn changes_that_are_done_after_they_were_given_up_are_survived() {
    let faults = StoreFaults { late: RATE, ..StoreFaults::NONE };
    let late = total(faults, false, |store| store.counts().late);
    assert!(late > 20, "only {late} changes came late");
}

#[test]
fn throttling_is_survived() {
    let faults = StoreFaults { throttled: RATE, ..StoreFaults::NONE };
    assert!(total(faults, false, |store| store.counts().throttled) > 20);
}

#[test]
fn a_slow_store_takes_time_and_nothing_else() {
    let faults = StoreFaults { slow: RATE, slow_max: Duration::from_secs(3), ..StoreFaults::NONE };
    assert!(total(faults, false, |store| store.counts().slow) > 20);
    let store = SimStore::new(1, clock());
    store.set_faults(StoreFaults { slow: 1000, slow_max: Duration::from_secs(3), ..StoreFaults::NONE });
    let mut archiver = Archiver::new(&store, 1);
    Steps::new().run(archiver.append(&Log::of(1, 5), 5)).unwrap();
    let took = archiver.host.take_latency();
    assert!(took > Duration::from_secs(5), "{took:?}");
    assert_eq!(archiver.host.take_latency(), Duration::ZERO);
}

#[test]
fn deaths_and_all_faults_together_are_survived() {
    let dead = total(StoreFaults::all_kinds(20), true, |store| store.counts().dead);
    assert!(dead > 20, "only {dead} requests of dead hosts");
}

#[test]
fn merging_and_deleting_of_metadata_lose_nothing() {
    let store = history(0, StoreFaults::all_kinds(10), true, LONG);
    let found = TableOracle::new(TABLE).check(&store).unwrap();
    assert!(found.version > 150, "{}", found.version);
    assert!(store.paths_below(TABLE).iter().any(|path| path.ends_with("-m1.avro")), "nothing was merged");
    assert!(store.object(&format!("{TABLE}/metadata/v1.metadata.json")).is_none(), "nothing was deleted");
}

#[test]
fn a_full_store_takes_nothing_and_goes_on_when_there_is_room() {
    let (steps, store, log) = (Steps::new(), SimStore::new(3, clock()), Log::of(3, 20));
    let mut archiver = Archiver::new(&store, 3);
    steps.run(archiver.append(&log, 10)).unwrap();
    let before = store.paths_below("");
    store.set_faults(StoreFaults { full: true, ..StoreFaults::NONE });
    for _ in 0..5 {
        let error = steps.run(archiver.append(&log, 10)).unwrap_err();
        assert_retryable(&error, &store);
    }
    assert_eq!(store.paths_below(""), before);
    assert_eq!(store.counts().full, 5);
    store.set_faults(StoreFaults::NONE);
    assert_eq!(steps.run(archiver.append(&log, 10)).unwrap(), 20);
    let found = TableOracle::new(TABLE).check(&store).unwrap();
    assert_eq!(found.rows, log.rows());
}

#[test]
fn a_dead_host_changes_nothing() {
    let (steps, store, log) = (Steps::new(), SimStore::new(4, clock()), Log::of(4, 20));
    let mut archiver = Archiver::new(&store, 4);
    steps.run(archiver.append(&log, 10)).unwrap();
    let before = store.paths_below("");
    archiver.host.kill();
    steps.run(archiver.append(&log, 10)).unwrap_err();
    assert_eq!(store.paths_below(""), before);
    assert!(!archiver.host.is_alive());
    archiver.reborn(&store);
    assert_eq!(steps.run(archiver.append(&log, 10)).unwrap(), 20);
}

#[test]
fn the_same_seed_gives_the_same_requests_and_another_seed_others() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..4 {
        let (one, other) =
            (run(seed, StoreFaults::all_kinds(20), true), run(seed, StoreFaults::all_kinds(20), true));
        assert_eq!(one.story(), other.story(), "seed {seed}");
        assert_eq!((one.trace_hash(), one.counts()), (other.trace_hash(), other.counts()), "seed {seed}");
        // All but the Avro files, with their random markers and maps in random order, is the same to the byte.
        let paths = one.paths_below("");
        assert_eq!(paths, other.paths_below(""));
        for path in paths.iter().filter(|path| !path.ends_with(".avro")) {
            assert_eq!(one.object(path), other.object(path), "seed {seed}: {path}");
        }
        hashes.insert(one.trace_hash());
    }
    assert_eq!(hashes.len(), 4);
}

/// Two archivers at the same time, with one request of either after the other in random order.
fn race(seed: u64) -> (SimStore, u64) {
    let (steps, store, log) = (Steps::new(), SimStore::new(seed, clock()), Log::of(seed, 80));
    store.set_faults(StoreFaults { waits: 500, lost_ack: 10, late: 10, error: 10, ..StoreFaults::NONE });
    let mut archivers = [Archiver::new(&store, seed), Archiver::new(&store, seed + 1000)];
    archivers[1].host = store.for_host(1);
    let mut oracle = TableOracle::new(TABLE);
    let (mut rows, mut fenced) = (Vec::new(), 0);
    for round in 0.. {
        assert!(round < ATTEMPTS_MAX, "seed {seed}: stuck at {}\n{}", rows.len(), store.story());
        let [one, other] = &mut archivers;
        let (one, other) = steps.run(futures_util::future::join(one.append(&log, 9), other.append(&log, 4)));
        for error in [one.err(), other.err()].into_iter().flatten() {
            fenced += u64::from(matches!(error, Error::Refused { .. }));
            assert_retryable(&error, &store);
        }
        rows.extend(kept(oracle.check(&store), seed, &store).rows);
        if rows.len() == log.len() {
            break;
        }
    }
    assert_eq!(rows, log.rows(), "seed {seed}");
    assert_eq!(store.violations(), Vec::<String>::new(), "seed {seed}");
    (store, fenced)
}

#[test]
fn of_two_archivers_at_once_one_is_fenced_and_each_row_is_there_once() {
    let fenced: u64 = SEEDS.map(|seed| race(seed).1).sum();
    assert!(fenced > 20, "only {fenced} appends were fenced");
    assert_eq!(race(7).0.trace_hash(), race(7).0.trace_hash());
}

#[test]
fn the_archive_reads_what_the_oracle_reads() {
    let (steps, store, log) = (Steps::new(), SimStore::new(5, clock()), Log::of(5, 40));
    let mut archiver = Archiver::new(&store, 5);
    while steps.run(archiver.append(&log, 11)).unwrap() < log.len() {}
    let scan = archiver.archive.as_ref().unwrap().scan();
    let records = steps.run(scan.stream().try_concat()).unwrap();
    assert_eq!(records, log.records());
}

#[test]
#[ignore = "takes minutes; for a night or after a change of the archive"]
fn hundreds_of_seeds_are_survived() {
    for seed in 1_000..1_300 {
        run(seed, StoreFaults::all_kinds(25), true);
        race(seed);
        if seed.is_multiple_of(10) {
            history(seed, StoreFaults::all_kinds(25), true, LONG);
        }
    }
}

#[test]
#[ignore = "prints figures of this machine"]
#[expect(clippy::disallowed_methods, reason = "it measures")]
fn figures() {
    for size in [1, 100, 1_000] {
        let (steps, store, log) = (Steps::new(), SimStore::new(1, clock()), Log::of(1, size * 100));
        let mut archiver = Archiver::new(&store, 1);
        steps.run(archiver.append(&log, 0)).unwrap();
        let archive = archiver.archive.take().unwrap();
        archiver.archive = Some(archive.with_settings(Settings::default()));
        let requests = store.counts().requests;
        let (mut oracle, mut checking) = (TableOracle::new(TABLE), Duration::ZERO);
        let start = Instant::now();
        while steps.run(archiver.append(&log, size)).unwrap() < log.len() {
            let start = Instant::now();
            oracle.check(&store).unwrap();
            checking += start.elapsed();
        }
        let took = start.elapsed() - checking;
        println!(
            "appends of {size:>4}: {:>6.2} ms each, {:>7.0} rows/s, {} requests each, a check {:.2} ms",
            took.as_secs_f64() * 10.0,
            f64::from(u32::try_from(size * 100).unwrap()) / took.as_secs_f64(),
            (store.counts().requests - requests) / 100,
            checking.as_secs_f64() * 10.0,
        );
    }
    let steps = Steps::new();
    let start = Instant::now();
    for n in 0..1_000 {
        assert_eq!(steps.run(async { n }), n);
    }
    println!("an empty step: {:.1} µs", start.elapsed().as_secs_f64() * 1e3);
}
