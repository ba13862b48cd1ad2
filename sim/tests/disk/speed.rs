//! How fast and how small it is.

use rusqlite::Connection;

use crate::bench::Bench;

#[test]
#[ignore = "measures; run alone and in release: cargo test --release -p sim --test disk -- --ignored --nocapture"]
#[expect(clippy::disallowed_methods, reason = "it measures real time")]
fn commits_per_second() {
    for (databases, rounds) in [(1, 100_000), (5_000, 20)] {
        let bench = Bench::new(1);
        let pragmas = "PRAGMA journal_mode = wal; PRAGMA synchronous = full; PRAGMA wal_autocheckpoint = 32;
                       CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB)";
        let before = resident_kib();
        let began = std::time::Instant::now();
        let open = |number| bench.open(&format!("{number}.db"), pragmas).expect("sound");
        let conns: Vec<Connection> = (0..databases).map(open).collect();
        let opened = began.elapsed();
        let began = std::time::Instant::now();
        for _ in 0..rounds {
            for conn in &conns {
                conn.prepare_cached("INSERT INTO t (data) VALUES (zeroblob(200))")
                    .and_then(|mut statement| statement.execute([]))
                    .expect("sound");
            }
        }
        let took = began.elapsed();
        let commits = u32::try_from(conns.len()).expect("few") * rounds;
        println!(
            "{databases} databases: {:.0} commits/s, opened in {:.0} µs each, {} KiB each, {} KiB on disk each",
            f64::from(commits) / took.as_secs_f64(),
            opened.as_secs_f64() * 1e6 / f64::from(u32::try_from(conns.len()).expect("few")),
            (resident_kib() - before) / conns.len(),
            bench.disk.used_bytes() / 1024 / u64::try_from(conns.len()).expect("few"),
        );
    }
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("it tells");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}
