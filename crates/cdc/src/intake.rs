//! Serves an object's inbox: requests that wait together share one transaction and one sync.

use std::sync::Arc;

use cdc_model::{Answer, fault_point, reached};
use cdc_net::{Delivery, Env, Request};
use cdc_relay::Receiver;
use tokio::sync::mpsc;

use crate::Error;
use crate::node::serve as serve_in;
use crate::shared::Shared;
use crate::sharing::Sharing;
use crate::slot::Usage;

/// Requests that share one transaction at most.
const GROUP_REQUESTS_MAX: usize = 128;

/// Records that share one transaction at most.
const GROUP_RECORDS_MAX: usize = 20_000;

pub(crate) async fn serve<E: Env>(object: Arc<Shared<E>>, mut inbox: mpsc::Receiver<Delivery>) {
    while let Some(first) = inbox.recv().await {
        let mut records = weight(&first.request);
        let mut group = vec![first];
        while group.len() < GROUP_REQUESTS_MAX && records < GROUP_RECORDS_MAX {
            if fault_point!("intake.group-cut-short") {
                break;
            }
            let Ok(delivery) = inbox.try_recv() else { break };
            records += weight(&delivery.request);
            group.push(delivery);
        }
        let group = match object.handles.check_disk() {
            Ok(()) => group,
            Err(error) => {
                object.set_failed("intake", &error);
                let waits = |Delivery { request, .. }: &Delivery| {
                    weight(request) > 0 && object.handles.check_disk_for(request.sender()).is_err()
                };
                let (later, now) = group.into_iter().partition(waits);
                hold_back(&object, later).await;
                now
            }
        };
        if group.is_empty() {
            continue;
        }
        let (requests, ways): (Vec<_>, Vec<_>) =
            group.into_iter().map(|delivery| (delivery.request, delivery.answer)).unzip();
        let receiver = Receiver { id: object.id().clone(), ancestors: object.ancestors.borrow().clone() };
        let settled = *object.settled.borrow();
        let receiver = Arc::new(receiver);
        let answering = Arc::clone(&receiver);
        let served = object.share(
            Sharing::Intake,
            move |group, stages| Ok(group.transact(|log| serve_in(log, &receiver, stages, &requests))?),
            move |node, served| node.answers(&answering, settled, served),
        );
        let served = served.await;
        match served {
            // As when the process ends just now, and none of them is told.
            Ok(_) if fault_point!("intake.answers-lost") => {}
            Ok(answers) => {
                if object.handles.check_disk().is_ok() {
                    object.clear_trouble("intake");
                }
                for (way, answer) in ways.into_iter().zip(answers) {
                    // A child that went away asks again when it is back.
                    drop(way.send(answer));
                }
            }
            // Dropping the ways back tells the children that no answer comes; they try again.
            Err(error) => {
                reached!("intake.failed");
                object.set_failed("intake", &error);
                // It says nothing of what is stored, and the children wait instead of asking who is there.
                if matches!(&error, Error::Log(error) if error.is_full_disk()) {
                    reached!("intake.disk-full");
                    ways.into_iter().for_each(|way| drop(way.send(Answer::busy())));
                }
            }
        }
    }
}

/// Answers batches for which there is no room, so that their children wait, and hear what is settled.
async fn hold_back<E: Env>(object: &Arc<Shared<E>>, deliveries: Vec<Delivery>) {
    reached!("intake.held-back");
    let (children, ways): (Vec<_>, Vec<_>) =
        deliveries.into_iter().map(|delivery| (delivery.request.sender().clone(), delivery.answer)).unzip();
    let receiver = Receiver { id: object.id().clone(), ancestors: object.ancestors.borrow().clone() };
    let settled = *object.settled.borrow();
    let answers =
        object.run_unsynced(Usage::Passing, move |node| node.hold_back(&receiver, settled, &children));
    // A log that cannot be read says nothing of what is stored either.
    let answers = answers.await.unwrap_or_else(|_| ways.iter().map(|_| Answer::busy()).collect());
    ways.into_iter().zip(answers).for_each(|(way, answer)| drop(way.send(answer)));
}

fn weight(request: &Request) -> usize {
    match request {
        Request::Hello(_) | Request::Grant(_) => 0,
        Request::Batch(batch) => batch.records.len(),
    }
}
