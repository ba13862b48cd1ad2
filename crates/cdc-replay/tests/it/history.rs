use cdc_model::{Body, Filter, Operation};
use cdc_replay::Replay;
use proptest::prelude::*;

use crate::world::{Memory, cut_logs, record, run, seq, source};

proptest! {
    #[test]
    fn a_history_is_every_change_of_one_document_and_nothing_else((log, cut) in cut_logs(), document in 0..4_u8) {
        let (cold, hot) = cut.tiers(&log);
        let name = document.to_string();
        let wanted = |r: &&cdc_model::Record| {
            let change = r.body.change().unwrap().unwrap();
            change.collection == "c1" && change.document_id == name
        };
        let of_all = log.iter().filter(wanted);
        let replay = || Replay::new().cold(&cold).hot(&hot).history("c1", &name).batch_size(4);
        prop_assert_eq!(run(replay()).whole(), of_all.clone().cloned().collect::<Vec<_>>());

        let of_one = of_all.filter(|r| r.origin.source() == &source(1)).cloned().collect::<Vec<_>>();
        prop_assert_eq!(run(replay().filter(Filter::source(source(1)))).whole(), of_one);
        prop_assert_eq!(run(replay().filter(Filter::collection("c2"))).whole(), []);
    }
}

#[test]
fn schema_changes_belong_to_no_documents_history() {
    let change = r#"{"operation":"INSERT","collection":"c0","documentId":"1","after":{}}"#;
    let schema = cdc_model::SchemaChange {
        collection: "c0".into(),
        version: 1,
        columns: vec![],
        ..cdc_model::SchemaChange::default()
    };
    let log = [record(1, 1, Body::schema(schema)), record(2, 2, Body::parse(change).unwrap())];
    let hot = Memory::dense(&log);
    assert_eq!(run(Replay::new().hot(&hot).filter(Filter::operation(Operation::Insert))).sequences(), [1, 2]);
    assert_eq!(run(Replay::new().hot(&hot).history("c0", "1")).sequences(), [seq(2).get()]);
}
