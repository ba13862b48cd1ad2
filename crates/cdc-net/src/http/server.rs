use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::sync::{Semaphore, watch};

use super::over_env::{Io, Spawner, Ticker};
use super::{HttpError, Reach};
use crate::{Env, Transport, wire};

mod handler;
use handler::Handler;

/// Most bytes of headers in a request.
const HEADER_BYTES_MAX: u32 = 8 << 10;

/// How long to wait after a connection could not be accepted, for instance because there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The limits of an [`HttpServer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Most connections; more wait to be accepted.
    pub connections_max: u32,
    /// Most requests under way on one connection; more wait at the client.
    pub streams_max: u32,
    /// Most requests under way; more are answered with `Busy`.
    pub requests_max: u32,
    /// Most bytes of a request's text, unpacked; a larger one is refused.
    pub text_bytes_max: usize,
    /// Most bytes of all requests under way; what goes beyond is answered with `Busy`.
    pub memory_bytes_max: usize,
    /// How long a connection may take to its first request, and a request to arrive.
    pub read_timeout: Duration,
    /// How long an object may take to answer.
    pub answer_timeout: Duration,
    /// How long a connection may be without a request before it is closed.
    pub idle_timeout: Duration,
    /// How long requests under way may take once the server or their connection is ending.
    pub drain_timeout: Duration,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            connections_max: 256,
            streams_max: 256,
            requests_max: 1024,
            text_bytes_max: wire::TEXT_BYTES_MAX,
            memory_bytes_max: 1 << 30,
            read_timeout: Duration::from_secs(10),
            answer_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(120),
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Takes requests of other processes and hands them to the objects of this one.
#[derive(Debug)]
pub struct HttpServer<E: Env> {
    env: E,
    listener: E::Listener,
    address: SocketAddr,
    options: ServeOptions,
}

impl<E: Env> HttpServer<E> {
    /// Begins to listen; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`HttpError::NotLoopback`] for an address out of reach, [`HttpError::Listen`] for one that is taken.
    pub async fn bind(
        env: E,
        address: SocketAddr,
        reach: Reach,
        options: ServeOptions,
    ) -> Result<Self, HttpError> {
        reach.check(address)?;
        let listening = env.listen(address).await;
        let (listener, address) = listening.map_err(|source| HttpError::Listen { address, source })?;
        Ok(Self { env, listener, address, options })
    }

    /// The address taken.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves the objects, which are those of a [`Loopback`](crate::Loopback), until `stop` is true or its sender is
    /// gone. Then no more connections are accepted, requests under way have their time to end, and when this returns no
    /// connection is left.
    pub async fn serve(mut self, objects: impl Transport, stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(usize::try_from(self.options.connections_max).unwrap_or(1)));
        let handler = Arc::new(Handler::new(self.env.clone(), Box::new(objects), self.options.clone()));
        let ticker = Ticker::new(self.env.clone());
        let mut stopped = pin!(stopped(stop.clone()));
        loop {
            let accept = async {
                // The semaphore is never closed.
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((self.env.accept(&mut self.listener).await, place))
            };
            let accepted = tokio::select! {
                biased;
                () = &mut stopped => break,
                accepted = accept => accepted,
            };
            match accepted {
                Some((Ok((conn, _)), place)) => {
                    let connection = Connection {
                        env: self.env.clone(),
                        ticker: ticker.clone(),
                        handler: Arc::clone(&handler),
                        stop: stop.clone(),
                    };
                    self.env.spawn(async move {
                        connection.serve(conn).await;
                        drop(place);
                    });
                }
                Some((Err(_), _)) => self.env.sleep(ACCEPT_PAUSE).await,
                None => break,
            }
        }
        drop(self.listener);
        // All places are free when the last connection has ended.
        drop(places.acquire_many(self.options.connections_max).await);
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that nobody is left who could stop it.
    drop(stop.wait_for(|stop| *stop).await);
}

/// One connection and what it needs.
struct Connection<E: Env> {
    env: E,
    ticker: Ticker<E>,
    handler: Arc<Handler<E>>,
    stop: watch::Receiver<bool>,
}

impl<E: Env> Connection<E> {
    async fn serve(self, conn: E::Conn) {
        let options = self.handler.options();
        let (active, activity) = watch::channel(Activity::default());
        let handler = Arc::clone(&self.handler);
        let service = service_fn(move |request: Request<Incoming>| {
            let (handler, active) = (Arc::clone(&handler), Active::new(active.clone()));
            async move {
                let response: Response<Full<Bytes>> = handler.handle(request).await;
                drop(active);
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http2::Builder::new(Spawner::new(&self.env))
            .timer(self.ticker)
            .auto_date_header(false)
            .max_header_list_size(HEADER_BYTES_MAX)
            .max_concurrent_streams(options.streams_max)
            .serve_connection(Io(conn), service);
        let mut connection = pin!(connection);
        // How it ends is nobody's concern here: the client sees it.
        tokio::select! {
            biased;
            _ = connection.as_mut() => return,
            () = idle(&self.env, options, activity) => {}
            () = stopped(self.stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            _ = connection => {}
            () = self.env.sleep(options.drain_timeout) => {}
        }
    }
}

/// What happens on a connection.
#[derive(Clone, Copy, Debug, Default)]
struct Activity {
    requests: u64,
    under_way: u64,
}

/// A request under way.
struct Active(watch::Sender<Activity>);

impl Active {
    fn new(activity: watch::Sender<Activity>) -> Self {
        activity.send_modify(|activity| {
            activity.requests += 1;
            activity.under_way += 1;
        });
        Self(activity)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.send_modify(|activity| activity.under_way -= 1);
    }
}

/// Completes when the connection has been without a request for too long.
async fn idle<E: Env>(env: &E, options: &ServeOptions, mut activity: watch::Receiver<Activity>) {
    loop {
        let seen = *activity.borrow_and_update();
        let wait: std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> = match seen {
            Activity { under_way: 1.., .. } => Box::pin(std::future::pending()),
            Activity { requests: 0, .. } => Box::pin(env.sleep(options.read_timeout)),
            Activity { .. } => Box::pin(env.sleep(options.idle_timeout)),
        };
        tokio::select! {
            biased;
            changed = activity.changed() => if changed.is_err() { return },
            () = wait => return,
        }
    }
}
