//! temporary
#![allow(warnings, clippy::all, clippy::pedantic, clippy::restriction)]
use std::path::Path;
use cdc_log::*;
use cdc_model::*;
use rusqlite::{Connection, params_from_iter};
use rusqlite::types::Value as V;

fn cpu() -> u64 { std::fs::read_to_string("/proc/self/schedstat").unwrap().split(' ').next().unwrap().parse().unwrap() }
fn id() -> ObjectId { "https://crm.headless.ly/acme".parse().unwrap() }

const N: usize = 20000;
#[derive(Clone, Copy, PartialEq)] enum Mode { None, Floor, Captured }

fn conn(path: &Path) -> Connection {
    let c = Connection::open(path).unwrap();
    c.query_row("PRAGMA journal_mode=wal", [], |_| Ok(())).unwrap();
    c.execute_batch("PRAGMA synchronous=normal").unwrap();
    c
}
fn values(width: usize, n: usize) -> Vec<V> {
    (0..width).map(|at| match at { 0 => V::Integer(n as i64), a if a % 3 == 1 => V::Text(format!("value {a} of {n}")), a if a % 3 == 2 => V::Real(n as f64 * 1.5), _ => V::Integer((n * 7) as i64) }).collect()
}
fn run(create: &str, width: usize, per: usize, mode: Mode) -> [f64; 3] {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("a.db");
    let c = conn(&path);
    c.execute_batch(create).unwrap();
    let vs: String = (0..2 * width).map(|i| format!(", v{i}")).collect();
    if mode == Mode::Floor { c.execute_batch(&format!("CREATE TABLE floor(seq INTEGER PRIMARY KEY, ts, op, tbl, nonce{vs})")).unwrap(); }
    if mode == Mode::Captured {
        let mut a = Attached::open(&path, &dir.path().join("log"), &id(), Tables::All, &Clock::system()).unwrap();
        a.install().unwrap();
    }
    let marks = |n: usize| vec!["?"; n].join(",");
    let insert = format!("INSERT INTO t VALUES ({})", marks(width));
    let fl = |n: usize| { let v: String = (0..n).map(|i| format!(", v{i}")).collect(); format!("INSERT INTO floor(ts, op, tbl, nonce{v}) VALUES (?,?,?,?{})", ",?".repeat(n)) };
    let (fi, fu) = (fl(width), fl(2 * width));
    let head = || vec![V::Integer(1764000000000), V::Text("I".into()), V::Integer(1), V::Integer(0x7fff_1234_5678_9abc)];
    let mut out = [0.0; 3];
    for op in 0..3 {
        let rows: Vec<Vec<V>> = (1..=N).map(|n| values(width, n)).collect();
        let two: Vec<Vec<V>> = if mode == Mode::Floor { rows.iter().map(|r| { let mut h = head(); h.extend(r.clone()); if op == 1 { h.extend(r.clone()); } h }).collect() } else { vec![] };
        let begin = cpu();
        for chunk in (0..N).collect::<Vec<_>>().chunks(per) {
            c.prepare_cached("BEGIN").unwrap().execute([]).unwrap();
            for &n in chunk {
                match op {
                    0 => c.prepare_cached(&insert).unwrap().execute(params_from_iter(rows[n].iter())).unwrap(),
                    1 => c.prepare_cached("UPDATE t SET a = ?2 WHERE id = ?1").unwrap().execute((&rows[n][0], "changed")).unwrap(),
                    _ => c.prepare_cached("DELETE FROM t WHERE id = ?1").unwrap().execute([&rows[n][0]]).unwrap(),
                };
                if mode == Mode::Floor {
                    c.prepare_cached(if op == 1 { &fu } else { &fi }).unwrap().execute(params_from_iter(two[n].iter())).unwrap();
                }
            }
            c.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
        }
        out[op] = (cpu() - begin) as f64 / N as f64 / 1000.0;
    }
    out
}
fn best(create: &str, width: usize, per: usize, mode: Mode) -> [f64; 3] {
    let mut b = [f64::MAX; 3];
    for _ in 0..5 { let r = run(create, width, per, mode); for i in 0..3 { b[i] = b[i].min(r[i]); } }
    b
}
fn body(n: usize) -> Body { Body::from_stored(format!("{{\"operation\":\"INSERT\",\"collection\":\"customers\",\"documentId\":\"{n}\",\"schemaVersion\":1,\"after\":{{\"id\":{n},\"name\":\"{}\"}}}}", "x".repeat(190))) }

fn main() {
    let wide = format!("CREATE TABLE t(id INTEGER PRIMARY KEY, a{})", (2..20).map(|i| format!(", c{i}")).collect::<String>());
    if std::env::args().nth(1).as_deref() != Some("log") {
    for (name, create, width) in [("narrow", "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)", 3), ("textpk", "CREATE TABLE t(id TEXT PRIMARY KEY, a TEXT, b)", 3), ("wide", wide.as_str(), 20)] {
        for per in [1, 100] {
            let (n, f, c) = (best(create, width, per, Mode::None), best(create, width, per, Mode::Floor), best(create, width, per, Mode::Captured));
            println!("{name} x{per}: none {n:.2?} floor {f:.2?} captured {c:.2?} ratio {:.2?}", [c[0]/f[0], c[1]/f[1], c[2]/f[2]]);
        }
    }
    }
    for per in [1, 100] {
        let (mut a, mut b) = (f64::MAX, f64::MAX);
        let n = if per == 1 { 5000 } else { 100_000 };
        for _ in 0..4 {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            let mut log = Log::open(dir.path().join("log"), &id(), &Clock::system()).unwrap();
            let bodies: Vec<_> = (0..n).map(body).collect();
            let t = cpu();
            for chunk in bodies.chunks(per) { log.transact(|l| { for b in chunk { l.append(Timestamp::new(1764000000000), b.clone())?; } Ok(()) }).unwrap(); }
            a = a.min((cpu() - t) as f64 / n as f64 / 1000.0);
            let c = conn(&dir.path().join("bare"));
            c.execute_batch("PRAGMA synchronous=full; PRAGMA wal_autocheckpoint=256; CREATE TABLE l(sequence INTEGER PRIMARY KEY, timestamp, origin, origin_sequence, origin_timestamp, capture, nonce, digest, body)").unwrap();
            let t = cpu();
            let mut seq = 0i64;
            for chunk in bodies.chunks(per) {
                c.prepare_cached("BEGIN IMMEDIATE").unwrap().execute([]).unwrap();
                for b in chunk { seq += 1; c.prepare_cached("INSERT INTO l VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)").unwrap().execute(rusqlite::params![seq, 1764000000000i64, None::<i64>, None::<i64>, None::<i64>, None::<i64>, None::<i64>, None::<[u8;16]>, b.as_str()]).unwrap(); }
                c.prepare_cached("COMMIT").unwrap().execute([]).unwrap();
            }
            b = b.min((cpu() - t) as f64 / n as f64 / 1000.0);
        }
        println!("append x{per}: {a:.2} bare {b:.2} ratio {:.2}", a / b);
    }
    // scan, read
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut log = Log::open(dir.path().join("log"), &id(), &Clock::system()).unwrap();
    let n = 100_000;
    log.transact(|l| { for i in 0..n { l.append(Timestamp::new(1764000000000), body(i))?; } Ok(()) }).unwrap();
    let raw = Connection::open(dir.path().join("log")).unwrap();
    let (mut s, mut r, mut q) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..5 {
        let t = cpu(); let mut sum = 0; let mut at = Sequence::ZERO;
        while at < log.tail().sequence { at = log.scan(at, Limit::default(), |row| { sum += row.body.len(); Ok(()) }).unwrap(); }
        s = s.min((cpu() - t) as f64 / n as f64 / 1000.0);
        let t = cpu(); at = Sequence::ZERO;
        while at < log.tail().sequence { let v = log.read(at, Limit::default()).unwrap(); at = v.last().unwrap().sequence; }
        r = r.min((cpu() - t) as f64 / n as f64 / 1000.0);
        let t = cpu(); let mut at = 0i64; let mut sum2 = 0;
        loop {
            let mut st = raw.prepare_cached("SELECT sequence, timestamp, body FROM _cdc_log WHERE sequence > ?1 AND sequence <= ?2 ORDER BY sequence").unwrap();
            let mut rows = st.query([at, at + 1000]).unwrap(); let was = at;
            while let Some(row) = rows.next().unwrap() { at = row.get(0).unwrap(); let _t: i64 = row.get(1).unwrap(); sum2 += row.get_ref(2).unwrap().as_str().unwrap().len(); }
            if at == was { break; }
        }
        q = q.min((cpu() - t) as f64 / n as f64 / 1000.0);
        assert_eq!(sum, sum2);
    }
    println!("scan {s:.3} read {r:.3} raw select {q:.3} ratio scan {:.2} read {:.2} (speed)", q / s, q / r);
    // drain
    for (name, create, width) in [("narrow", "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)", 3), ("wide", wide.as_str(), 20)] {
      for extra in ["", "CREATE TABLE w({})"] {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let c = conn(&dir.path().join("a.db"));
        c.execute_batch(create).unwrap();
        if !extra.is_empty() { c.execute_batch(&extra.replace("{}", &(0..1200).map(|i| format!("c{i}")).collect::<Vec<_>>().join(","))).unwrap(); }
        let mut a = Attached::open(&dir.path().join("a.db"), &dir.path().join("log"), &id(), Tables::All, &Clock::system()).unwrap();
        a.install().unwrap(); while a.look().unwrap().drained.more {}
        let before = std::fs::metadata(dir.path().join("a.db")).unwrap().len();
        let t = cpu();
        c.execute_batch("BEGIN").unwrap();
        for i in 1..=N { c.prepare_cached(&format!("INSERT INTO t VALUES ({})", vec!["?"; width].join(","))).unwrap().execute(params_from_iter(values(width, i).iter())).unwrap(); }
        c.execute_batch("COMMIT").unwrap();
        let w = (cpu() - t) as f64 / N as f64 / 1000.0;
        let t = cpu();
        while a.look().unwrap().drained.more {}
        println!("drain {name}{}: {:.2} us/row (write {w:.2})", if extra.is_empty() { "" } else { " beside 1200 columns" }, (cpu() - t) as f64 / N as f64 / 1000.0);
        c.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").ok();
        println!("  file grew {} B/row", (std::fs::metadata(dir.path().join("a.db")).unwrap().len() - before) / N as u64);
        let t = cpu(); for _ in 0..200 { a.look().unwrap(); } println!("  quiet look {:.0} us", (cpu() - t) as f64 / 200.0 / 1000.0);
        drop(c);
        let t = cpu(); for _ in 0..200 { a.look().unwrap(); } println!("  quiet look, app closed {:.0} us", (cpu() - t) as f64 / 200.0 / 1000.0);
      }
    }
    // owned write
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut log = Log::open(dir.path().join("o"), &id(), &Clock::system()).unwrap();
    log.write(|tx| tx.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)")).unwrap();
    log.capture(&Tables::All).unwrap();
    for per in [1usize, 100] {
        let t = cpu(); let n = if per == 1 { 5000 } else { 50000 };
        for i in 0..n / per { log.write(|tx| { for j in 0..per { tx.execute("INSERT INTO t(a, b) VALUES ('value of', ?1)", [(i * per + j) as i64])?; } Ok(()) }).unwrap(); }
        println!("owned write x{per}: {:.2} us/row", (cpu() - t) as f64 / n as f64 / 1000.0);
    }
}
