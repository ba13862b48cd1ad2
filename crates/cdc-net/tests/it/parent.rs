use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cdc_model::{Answer, Epoch, ObjectId, Record, Sequence};
use cdc_net::{Env as _, HttpServer, Loopback, Reach, Request, ServeOptions, Tokio};
use cdc_relay::{Inbound, Intake, OriginMark, Receiver};
use tokio::sync::{oneshot, watch};

use crate::parent_id;

/// A receiving object: its machine, and what it has on disk.
#[derive(Debug)]
pub(crate) struct Parent {
    receiver: Receiver,
    link: Option<Inbound>,
    origins: BTreeMap<(ObjectId, Epoch), Sequence>,
    pub(crate) rows: Vec<Record>,
}

impl Parent {
    pub(crate) fn new() -> Arc<Mutex<Self>> {
        let receiver = Receiver { id: parent_id(), ancestors: vec![crate::id("https://headless.ly")] };
        Arc::new(Mutex::new(Self { receiver, link: None, origins: BTreeMap::new(), rows: Vec::new() }))
    }

    fn take(&mut self, request: &Request) -> Answer {
        let refusal = match request {
            Request::Hello(hello) => match self.receiver.greet(self.link.as_ref(), hello) {
                Ok(link) => {
                    self.link = Some(link);
                    None
                }
                Err(refusal) => Some(refusal),
            },
            Request::Grant(request) => match self.receiver.grant(self.link.as_ref(), request) {
                Ok((link, _)) => {
                    self.link = Some(link);
                    None
                }
                Err(refusal) => Some(refusal),
            },
            Request::Batch(batch) => match self.receiver.admit(self.link.as_ref(), batch) {
                Ok(admitted) => {
                    let marks = &self.origins;
                    let look_up = |source: &ObjectId, epoch| {
                        let taken = marks.get(&(source.clone(), epoch)).copied().unwrap_or_default();
                        Ok::<_, std::convert::Infallible>(OriginMark { taken, holes: vec![] })
                    };
                    let plan = admitted.plan(look_up).unwrap();
                    let stored = batch.records.iter().zip(&plan.intake);
                    let stored = stored.filter(|(_, intake)| matches!(intake, Intake::Store(_)));
                    self.rows.extend(stored.map(|(record, _)| record.clone()));
                    self.origins.extend(plan.origin_marks);
                    self.link = Some(plan.link);
                    None
                }
                Err(refusal) => Some(refusal),
            },
        };
        let settled = Sequence::new(u64::try_from(self.rows.len()).unwrap());
        self.receiver.answer(self.link.as_ref(), settled, refusal)
    }
}

/// Serves a parent's inbox within the process.
pub(crate) fn in_process(env: &Tokio, parent: &Arc<Mutex<Parent>>) -> Loopback {
    let net = Loopback::new();
    let (mut inbox, parent) = (net.serve(parent_id()), Arc::clone(parent));
    env.spawn(async move {
        while let Some(delivery) = inbox.recv().await {
            let answer = parent.lock().unwrap().take(&delivery.request);
            drop(delivery.answer.send(answer));
        }
    });
    net
}

/// A server in front of a parent.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) address: std::net::SocketAddr,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Served {
    pub(crate) async fn start(env: &Tokio, address: &str, parent: &Arc<Mutex<Parent>>) -> Self {
        let options = ServeOptions::default();
        let address = address.parse().unwrap();
        let server = HttpServer::bind(env.clone(), address, Reach::Loopback, options).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let (address, net) = (server.address(), in_process(env, parent));
        env.spawn(async move {
            server.serve(net, stopped).await;
            end.send(()).unwrap();
        });
        Self { address, stop, ended }
    }

    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.ended.await.unwrap();
    }
}
