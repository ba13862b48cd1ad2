//! Histories of two archivers over a store that fails and calls that are dropped half-way.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use cdc_iceberg::{Archive, Error};
use cdc_model::Remedy;
use proptest::prelude::*;

use crate::support::{Fault, Log, Warehouse, acme, components, read};

#[derive(Clone, Debug)]
struct Step {
    /// Which of the two archivers.
    archiver: usize,
    /// How many records it takes after what it believes is the mark.
    count: usize,
    /// What happens to its next puts, whatever they are.
    faults: Vec<Fault>,
    /// After how many polls the call is dropped.
    polls: Option<u32>,
    /// Whether it looks at the table before it cuts the batch.
    looks: bool,
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![Just(Fault::NotDone), Just(Fault::Done)];
    let faults = prop_oneof![2 => Just(vec![]), 1 => prop::collection::vec(fault, 1..5)];
    let polls = prop_oneof![2 => Just(None), 1 => (1..25_u32).prop_map(Some)];
    (0..2_usize, 1..6_usize, faults, polls, any::<bool>())
        .prop_map(|(archiver, count, faults, polls, looks)| Step { archiver, count, faults, polls, looks })
}

/// The future's result, or none when it was dropped after so many polls.
async fn at_most<T>(polls: Option<u32>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |context| {
        if left == Some(0) {
            return Poll::Ready(None);
        }
        left = left.map(|left| left - 1);
        future.as_mut().poll(context).map(Some)
    })
    .await
}

/// Runs the steps. What the archivers were told must have happened is checked on the way.
async fn run(warehouse: &Warehouse, log: &Log, steps: Vec<Step>) {
    let (storage, faulty) = warehouse.faulty();
    let mut archives: Vec<Archive> = Vec::new();
    for seed in 0..2 {
        archives.push(Archive::open_in(&storage, &acme(), components(seed)).await.unwrap());
    }
    for step in steps {
        let archive = &mut archives[step.archiver];
        if step.looks {
            archive.refresh().await.unwrap();
        }
        let mark = archive.watermark().map_or(0, |mark| usize::try_from(mark.sequence.get()).unwrap());
        let batch = log.batch(mark..(mark + step.count).min(log.records().len()));
        // The hint is left out: its failures are ignored and would use the faults up.
        faulty.plan(".parquet", &step.faults[..step.faults.len() / 2]);
        faulty.plan("metadata.json", &step.faults[step.faults.len() / 2..]);
        match at_most(step.polls, archive.append(&batch)).await {
            Some(Ok(appended)) => assert_eq!(archive.watermark().unwrap_or(appended.mark), batch.mark()),
            Some(Err(Error::Refused { mark, .. })) => assert_eq!(mark, archive.watermark()),
            Some(Err(error)) => assert_eq!(error.remedy(), Remedy::Retry, "{error:?}"),
            None => {}
        }
        faulty.clear();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_record_is_there_once_up_to_the_mark(steps in prop::collection::vec(step(), 1..14)) {
        let (warehouse, log) = (Warehouse::new(), Log::of(80));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(&warehouse, &log, steps));
        // Waits for writes of dropped calls, which may still land.
        drop(runtime);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mark, found) = runtime.block_on(async {
            let archive = warehouse.archive(9).await;
            (archive.watermark(), read(&archive).await)
        });
        let through = mark.map_or(0, |mark| usize::try_from(mark.sequence.get()).unwrap());
        prop_assert_eq!(found, &log.records()[..through]);
        prop_assert_eq!(mark.map_or(log.position(0), |mark| mark.position()), log.position(through));
    }
}
