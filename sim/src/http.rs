//! Requests between processes over HTTP, with an eye on what becomes of them.

mod batches;
use batches::BatchName;
pub(crate) use batches::Batches;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cdc::Env;
use cdc_model::{Answer, ObjectId};
use cdc_net::{
    Call, Http, HttpOptions, HttpServer, Loopback, Reach, Request, ServeOptions, Transport, TransportError,
};
use tokio::sync::watch;

use crate::host::{ANSWER_TIMEOUT_MS, Net};
use crate::oracle::Oracle;
use crate::world::HostIndex;

/// Pause before a process tries again to listen.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// One process's end of a network with connections.
#[derive(Debug)]
pub(crate) struct HttpNet {
    host: HostIndex,
    batches: Batches,
    oracle: Arc<Mutex<Oracle>>,
    /// Where each process listens.
    addresses: Arc<Vec<SocketAddr>>,
    /// Where this one does, as it says it itself.
    listens_on: SocketAddr,
}

impl HttpNet {
    pub(crate) const fn new(
        host: HostIndex,
        batches: Batches,
        oracle: Arc<Mutex<Oracle>>,
        addresses: Arc<Vec<SocketAddr>>,
        listens_on: SocketAddr,
    ) -> Self {
        Self { host, batches, oracle, addresses, listens_on }
    }
}

/// Quicker than in production to see that a connection is dead: trouble lasts for seconds, and lost bytes of a
/// simulated connection are not sent again.
const CLIENT: HttpOptions = HttpOptions {
    call_timeout: Duration::from_millis(ANSWER_TIMEOUT_MS),
    ping_interval: Duration::from_millis(100),
    ping_timeout: Duration::from_millis(400),
};

fn server() -> ServeOptions {
    ServeOptions {
        read_timeout: Duration::from_secs(2),
        answer_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(1),
        ..ServeOptions::default()
    }
}

impl<E: Env> Net<E> for HttpNet {
    fn transport(&self, env: &E) -> Arc<dyn Transport> {
        let http = Http::new(env.clone(), Reach::Simulated, CLIENT);
        let oracle = lock(&self.oracle);
        let parents = oracle.places.iter().filter(|place| place.host == self.host);
        for parent in parents.filter_map(|place| place.parent) {
            let parent = oracle.place(parent);
            if parent.host != self.host
                && let Some(address) = self.addresses.get(parent.host)
            {
                http.set_endpoint(parent.id.clone(), *address).expect("every address is within reach");
            }
        }
        let (env, batches) = (env.clone(), self.batches.clone());
        Arc::new(Told { http, env, host: self.host, batches, oracle: Arc::clone(&self.oracle) })
    }

    fn serve(self, env: &E, inboxes: Loopback) {
        let (ours, inboxes) = (env.clone(), Taking { inboxes, batches: self.batches, oracle: self.oracle });
        env.spawn(async move {
            let (_stop, never) = watch::channel(false);
            loop {
                let bound = HttpServer::bind(ours.clone(), self.listens_on, Reach::Simulated, server()).await;
                if let Ok(server) = bound {
                    return server.serve(inboxes, never).await;
                }
                ours.sleep(LISTEN_AGAIN_AFTER).await;
            }
        });
    }
}

/// The sender's side: tells which batches were sent and whether their answers came.
struct Told<E: Env> {
    http: Http<E>,
    env: E,
    host: HostIndex,
    batches: Batches,
    oracle: Arc<Mutex<Oracle>>,
}

impl<E: Env> Transport for Told<E> {
    fn call(&self, to: &ObjectId, request: Request) -> Call {
        self.batches.traffic().count(|counts| counts.sent += 1);
        let mut sending = Sending {
            batches: self.batches.clone(),
            hosts: (self.host, lock(&self.oracle).host_of(to).unwrap_or(self.host)),
            begun: self.env.now(),
            batch: match &request {
                Request::Batch(batch) => Some(BatchName::of(to, batch)),
                Request::Hello(_) | Request::Grant(_) => None,
            },
            answered: false,
        };
        if let Some(batch) = &sending.batch {
            self.batches.sends(batch.clone());
        }
        let call = self.http.call(to, request);
        Box::pin(async move {
            let answered = call.await;
            sending.answered = answered.is_ok();
            drop(sending);
            answered
        })
    }
}

impl<E: Env> fmt::Debug for Told<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("http", &self.http).finish_non_exhaustive()
    }
}

/// A request under way; its end is told also when nobody waits for it any more.
struct Sending {
    batches: Batches,
    hosts: (HostIndex, HostIndex),
    begun: Duration,
    batch: Option<BatchName>,
    answered: bool,
}

impl Drop for Sending {
    fn drop(&mut self) {
        let (one, other) = self.hosts;
        match self.batch.take() {
            Some(batch) => {
                if !self.answered {
                    self.batches.traffic().batch_stopped(one, other, self.begun);
                }
                self.batches.ends(batch, self.answered);
            }
            None => self.batches.traffic().count(|counts| counts.lost_requests += u64::from(!self.answered)),
        }
    }
}

/// The receiver's side: tells what was committed, before its answer is on the way.
#[derive(Debug)]
struct Taking {
    inboxes: Loopback,
    batches: Batches,
    oracle: Arc<Mutex<Oracle>>,
}

impl Transport for Taking {
    fn call(&self, to: &ObjectId, request: Request) -> Call {
        let (batches, oracle) = (self.batches.clone(), Arc::clone(&self.oracle));
        let (to, sender) = (to.clone(), request.sender().clone());
        let batch = match &request {
            Request::Batch(batch) => Some(BatchName::of(&to, batch)),
            Request::Hello(_) | Request::Grant(_) => None,
        };
        let call = self.inboxes.call(&to, request);
        Box::pin(async move {
            let answered: Result<Answer, TransportError> = call.await;
            if let Ok(answer) = &answered {
                lock(&oracle).answered(&to, &sender, answer);
                if let Some(batch) = batch.filter(|_| answer.refusal.is_none()) {
                    batches.taken(&batch);
                    if batches.is_answer_lost() {
                        return std::future::pending().await;
                    }
                }
            }
            answered
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
