use std::time::Duration;

use cdc::{AttachOptions, Clock, Deadline, Env as _, ObjectId, Project, Remaining, Settings, Tables, Tokio};
use rusqlite::Connection;

use crate::{everything, open};

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_writes_to_an_attached_database_reaches_the_root_and_the_rows_agree() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let app = Connection::open(&database).unwrap();
    app.execute_batch(
        "CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO customers VALUES (1, 'Ada')",
    )
    .unwrap();
    let cdc = open(folder.path()).await;
    let root = cdc.object("https://startups.studio").open().await.unwrap();
    let options = AttachOptions {
        database: database.clone(),
        id: "https://startups.studio/app".parse().unwrap(),
        context: Some(root.id().clone()),
        tables: Tables::All,
    };
    let report = cdc.project().attach(&options, &Clock::system()).unwrap();
    assert_eq!((report.installed.tables, report.installed.rows), (vec!["customers".to_owned()], 1));
    assert_eq!(cdc.open_all().await.unwrap().opened, 1);
    for n in 2..100_i64 {
        app.execute("INSERT INTO customers VALUES (?1, 'Grace')", [n]).unwrap();
        if n % 10 == 0 {
            app.execute("UPDATE customers SET name = name || '!' WHERE id < ?1", [n]).unwrap();
            app.execute("DELETE FROM customers WHERE id = ?1", [n - 5]).unwrap();
        }
    }
    cdc.quiet().await.unwrap();
    let verified = cdc.project().verify(&Tokio::current(), None, true).await.unwrap();
    for (id, verified) in verified {
        assert_eq!((verified.difference, verified.under_way), (None, 0), "{id}");
    }
    let before = everything(&root).await.len();
    // Nobody asks for this one: the engine notices by itself.
    app.execute("INSERT INTO customers VALUES (1000, 'Noticed')", []).unwrap();
    for _ in 0..100 {
        if everything(&root).await.len() > before {
            break;
        }
        Tokio::current().sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(everything(&root).await.len(), before + 1);
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    Project::open(folder.path(), Settings::default()).unwrap().detach(&options.id, &Clock::system()).unwrap();
    let left: i64 = app
        .query_row("SELECT count(*) FROM sqlite_master WHERE name LIKE '\\_cdc\\_%' ESCAPE '\\'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_backfill_that_was_cut_short_is_begun_again_with_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("app.db");
    let app = Connection::open(&database).unwrap();
    app.execute_batch(
        "CREATE TABLE t(id INTEGER PRIMARY KEY);
         WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000) INSERT INTO t SELECT x FROM n",
    )
    .unwrap();
    let project = Project::open(folder.path(), Settings::default()).unwrap();
    let id: ObjectId = "https://local/app".parse().unwrap();
    let options = AttachOptions { database, id: id.clone(), context: None, tables: Tables::All };
    let attach = || project.attach(&options, &Clock::system()).unwrap().installed.rows;
    let begin = || project.backfill(&id, &Clock::system()).unwrap();
    assert_eq!(attach(), 5000);
    let mut backfill = begin();
    assert_eq!(backfill.remaining().rows, 5000);
    while backfill.step().unwrap().unwrap().scanned < 2000 {}
    drop(backfill);
    assert_eq!(attach(), 0);
    let mut backfill = begin();
    assert_eq!(*backfill.remaining(), Remaining { tables: vec!["t".to_owned()], rows: 3000 });
    let mut last = None;
    while let Some(progress) = backfill.step().unwrap() {
        last = Some(progress);
    }
    assert_eq!(last.map(|progress| (progress.scanned, progress.total)), Some((3000, 3000)));
    drop(backfill);
    assert_eq!(*begin().remaining(), Remaining::default());
}
