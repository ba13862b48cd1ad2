use std::time::Duration;

use cdc::{AttachOptions, Clock, Deadline, Env as _, Tables, Tokio};
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
    assert_eq!(cdc.open_all().await.unwrap().0, 1);
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
    cdc::Project::open(folder.path(), cdc::Settings::default())
        .unwrap()
        .detach(&options.id, &Clock::system())
        .unwrap();
    let left: i64 = app
        .query_row("SELECT count(*) FROM sqlite_master WHERE name LIKE '\\_cdc\\_%' ESCAPE '\\'", [], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(left, 0);
}
