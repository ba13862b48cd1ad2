use cdc::{ArchiveSettings, Cdc, Error, LinkOptions, Settings};

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
