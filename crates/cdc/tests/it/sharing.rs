//! Writes that wait for one object at the same time.

use std::path::{Path, PathBuf};

use cdc::{Error, Object};
use futures_util::future::join_all;

use crate::{CUSTOMERS, everything, open};

async fn database(object: &Object) -> PathBuf {
    object.query(|db| Ok(PathBuf::from(db.path().unwrap_or_default()))).await.unwrap()
}

/// How many transactions changed the database so far, as the index of its write-ahead log counts them.
fn commits(path: &Path) -> u32 {
    let index = std::fs::read(format!("{}-shm", path.display())).unwrap();
    u32::from_ne_bytes(index[8..12].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_together_share_a_commit_and_each_hears_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let object = cdc.object("https://a.b").migrate(CUSTOMERS).capture(["customers"]).open().await.unwrap();
    let path = database(&object).await;
    let before = commits(&path);
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let mut blocks = std::pin::pin!(object.query(move |_| Ok(wait.recv().is_ok())));
    tokio::select! { biased; _ = &mut blocks => {}, () = std::future::ready(()) => {} }
    let write = |n: i64| {
        object.write(move |tx| {
            tx.execute("INSERT INTO customers VALUES (?1, 'Ada', 'free')", [n])?;
            match n % 10 {
                3 => Err(Error::ShutDown),
                7 => panic!("on purpose"),
                _ => Ok(n),
            }
        })
    };
    let mut writes = std::pin::pin!(join_all((0..100).map(write)));
    tokio::select! { biased; _ = &mut writes => {}, () = std::future::ready(()) => {} }
    go.send(()).unwrap();
    for (told, n) in writes.await.into_iter().zip(0..) {
        match n % 10 {
            3 => assert!(matches!(told, Err(Error::ShutDown))),
            7 => assert!(matches!(told, Err(Error::Panicked { .. }))),
            _ => assert_eq!(told.unwrap(), n),
        }
    }
    assert_eq!(commits(&path), before + 1);
    let records = everything(&object).await;
    assert_eq!(records.iter().filter(|record| !record.body.is_schema()).count(), 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_constraint_that_is_checked_at_the_commit_fails_its_own_write_only() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let tables = "CREATE TABLE parent(id INTEGER PRIMARY KEY);
                  CREATE TABLE child(p REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED)";
    let object = cdc.object("https://a.b").migrate(tables).capture_all().open().await.unwrap();
    let write = |n: i64| {
        object.write(move |tx| {
            tx.execute("INSERT INTO child VALUES (?1)", [n])?;
            if n % 2 == 0 {
                tx.execute("INSERT INTO parent VALUES (?1)", [n])?;
            }
            Ok(())
        })
    };
    for (told, n) in join_all((0..20).map(write)).await.into_iter().zip(0..) {
        assert_eq!(told.is_ok(), n % 2 == 0, "{n}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_rolls_all_back_is_told_to_those_who_shared_it_as_to_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let cdc = open(folder.path()).await;
    let object = cdc.object("https://a.b").migrate(CUSTOMERS).capture_all().open().await.unwrap();
    let write = |n: i64| {
        object.write(move |tx| {
            let verb = if n == 5 { "INSERT OR ROLLBACK" } else { "INSERT" };
            tx.execute(
                &format!("{verb} INTO customers(id) VALUES (?1), (?2)"),
                [n, n + i64::from(n != 5) * 100],
            )?;
            Ok(())
        })
    };
    let told = join_all((0..10).map(write)).await;
    let mut written = 0;
    for (told, n) in told.into_iter().zip(0..) {
        match told {
            Ok(()) => written += 2,
            Err(error) if n == 5 => assert!(matches!(error, Error::Log(_)), "{error}"),
            Err(error) => assert_eq!(error.remedy(), cdc::Remedy::Retry, "{error}"),
        }
    }
    let rows = object
        .query(|db| Ok(db.query_row("SELECT count(*) FROM customers", [], |row| row.get::<_, i64>(0))?));
    assert_eq!(rows.await.unwrap(), written);
}
