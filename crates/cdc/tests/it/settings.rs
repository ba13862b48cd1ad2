use cdc::{ArchiveSettings, AuditSettings, Cdc, Clock, Deadline, Error, LinkOptions, Settings};

#[tokio::test]
async fn a_link_setting_outside_its_limits_is_refused_before_anything_opens() {
    let folder = tempfile::tempdir().unwrap();
    let link = LinkOptions { batch_size: 0, ..LinkOptions::default() };
    let settings = Settings { link, ..Settings::default() };
    let refused = Cdc::builder(folder.path()).settings(settings).open().await;
    assert!(matches!(refused, Err(Error::Relay(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_that_cannot_be_written_is_reported_and_hot_writes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("warehouse"), "a file in the way").unwrap();
    let settings =
        Settings { archive: Some(ArchiveSettings::new("file:./warehouse")), ..Settings::default() };
    let cdc = Cdc::builder(folder.path()).settings(settings).open().await.unwrap();
    let root =
        cdc.object("https://a.b").migrate(crate::CUSTOMERS).capture(["customers"]).open().await.unwrap();
    root.write(|tx| Ok(tx.execute("INSERT INTO customers VALUES (1, 'Ada', 'free')", []).map(drop)?))
        .await
        .unwrap();
    let stopped = cdc.quiet().await.unwrap_err().to_string();
    assert!(stopped.contains("archive has stopped") && stopped.contains("warehouse"), "{stopped}");
    assert_eq!(root.cursor().await.unwrap().sequence.get(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_was_under_way_ends_when_audits_are_turned_off() {
    let folder = tempfile::tempdir().unwrap();
    let audit = AuditSettings { interval_ms: 0, ..AuditSettings::default() };
    let object = async || {
        let settings = Settings { audit: audit.clone(), ..Settings::default() };
        let cdc = Cdc::builder(folder.path()).settings(settings).open().await.unwrap();
        let object = cdc.object("https://a.b").migrate(crate::CUSTOMERS).capture(["customers"]);
        (object.open().await.unwrap(), cdc)
    };
    let (customers, cdc) = object().await;
    let many = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 3000) INSERT INTO customers SELECT x, x, x FROM n";
    customers.write(|tx| Ok(tx.execute(many, []).map(drop)?)).await.unwrap();
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    let path = folder.path().join(cdc::object_folder(customers.id())).join("object.db");
    let log = || cdc_log::Log::open(&path, customers.id(), &Clock::system()).unwrap();
    assert!(log().audit().unwrap().more);
    let (_, cdc) = object().await;
    cdc.shutdown(Deadline::secs(10)).await.unwrap();
    assert!(!log().drop_audit().unwrap(), "the engine has dropped it");
}
