//! What goes wrong between client and server, and what each does about it. Time is paused where it matters: it goes on
//! by itself when nothing else does.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use cdc_model::{Answer, Epoch, ObjectId, Position, Refusal, Sequence};
use cdc_relay::Hello;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Response, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::over_env::{Io, Spawner};
use super::{Http, HttpError, HttpOptions, HttpServer, Reach, ServeOptions};
use crate::wire::{self, Failure};
use crate::{Call, Delivery, Env as _, Loopback, Request, Tokio, Transport as _, TransportError};

fn parent() -> ObjectId {
    "https://a.b".parse().unwrap()
}

fn hello() -> Request {
    Request::Hello(Hello {
        sender: "https://a.b/c".parse().unwrap(),
        generation: 1,
        session: 1,
        epoch: Epoch { number: 1, nonce: 1 },
        acked: Sequence::ZERO,
        tail: Position::START,
        floor: Sequence::new(1),
    })
}

fn answer() -> Answer {
    Answer { mark: None, settled: Sequence::ZERO, generation: 1, ancestors: vec![], refusal: None }
}

fn text(request: &Request) -> Vec<u8> {
    wire::encode_request(&parent(), request).unwrap()
}

/// A server with one object, whose requests come out of `inbox`.
struct Rig {
    env: Tokio,
    address: std::net::SocketAddr,
    inbox: mpsc::Receiver<Delivery>,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
}

impl Rig {
    async fn start(options: ServeOptions) -> Self {
        let env = Tokio::current();
        let net = Loopback::new();
        let inbox = net.serve(parent());
        let address = "127.0.0.1:0".parse().unwrap();
        let server = HttpServer::bind(env.clone(), address, Reach::Loopback, options).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let address = server.address();
        env.spawn(async move {
            server.serve(net, stopped).await;
            end.send(()).unwrap();
        });
        Self { env, address, inbox, stop, ended }
    }

    fn client(&self) -> Http<Tokio> {
        client(&self.env, self.address)
    }

    /// A call that is answered.
    async fn is_served(&mut self, http: &Http<Tokio>) {
        let (called, ()) = tokio::join!(http.call(&parent(), hello()), async {
            self.inbox.recv().await.unwrap().answer.send(answer()).unwrap();
        });
        assert_eq!(called, Ok(answer()));
    }

    /// Posts by hand; gives status and failure.
    async fn post<B>(&self, request: hyper::Request<B>) -> hyper::Result<(StatusCode, Failure)>
    where
        B: Body<Data = Bytes, Error = io::Error> + Send + Unpin + 'static,
    {
        let conn = TcpStream::connect(self.address).await.unwrap();
        let (mut requests, connection) =
            hyper::client::conn::http2::handshake(Spawner::new(&self.env), Io(conn)).await?;
        self.env.spawn(async move { drop(connection.await) });
        let response = requests.send_request(request).await?;
        let status = response.status();
        let text = response.into_body().collect().await?.to_bytes();
        Ok((status, wire::decode_failure(&text).unwrap()))
    }

    fn request<B>(&self, body: B) -> hyper::Request<B> {
        let uri = format!("http://{}/v1/hello", self.address);
        hyper::Request::post(uri).header(CONTENT_TYPE, wire::CONTENT_TYPE).body(body).unwrap()
    }
}

fn client(env: &Tokio, address: std::net::SocketAddr) -> Http<Tokio> {
    let http = Http::new(env.clone(), Reach::Loopback, HttpOptions::default());
    http.set_endpoint(parent(), address).unwrap();
    http
}

fn begin(call: Call) -> JoinHandle<Result<Answer, TransportError>> {
    Handle::current().spawn(call)
}

/// A body in pieces; after the last it ends, breaks off or never goes on.
struct Pieces(VecDeque<Piece>);

enum Piece {
    Data(Bytes),
    Broken,
    Silence,
}

impl Pieces {
    fn whole(text: impl Into<Bytes>) -> Self {
        Self(VecDeque::from([Piece::Data(text.into())]))
    }

    fn then(mut self, piece: Piece) -> Self {
        self.0.push_back(piece);
        self
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.0.front() {
            None => Poll::Ready(None),
            Some(Piece::Silence) => Poll::Pending,
            Some(Piece::Data(_) | Piece::Broken) => Poll::Ready(match self.0.pop_front() {
                Some(Piece::Data(data)) => Some(Ok(Frame::data(data))),
                _ => Some(Err(io::Error::other("cut off"))),
            }),
        }
    }
}

#[tokio::test]
async fn what_is_not_a_request_gets_the_failure_that_says_why() {
    let rig = Rig::start(ServeOptions { text_bytes_max: 4096, ..ServeOptions::default() }).await;
    let good = text(&hello());
    let packed = wire::pack(&[good.as_slice(), &[b' '; 2000]].concat()).unwrap();
    let post = |body: &[u8]| rig.request(Pieces::whole(body.to_vec()));
    let zstd = |body: &[u8]| {
        let mut request = post(body);
        request.headers_mut().insert(CONTENT_ENCODING, "zstd".parse().unwrap());
        request
    };
    let change = |change: fn(&mut hyper::Request<Pieces>)| {
        let mut request = post(&good);
        change(&mut request);
        request
    };
    for (name, request, status) in [
        ("garbage", post(b"\x00\xff{"), 400),
        ("half a document", post(&good[..good.len() / 2]), 400),
        ("nothing", post(b""), 400),
        ("another version", post(&String::from_utf8_lossy(&good).replace(":1,", ":9,").into_bytes()), 400),
        ("garbage as zstd", zstd(b"garbage"), 400),
        ("half a zstd", zstd(&packed[..packed.len() / 2]), 400),
        ("more than is taken", post(&[b' '; 5000]), 413),
        ("a bomb", zstd(&wire::pack(&vec![b' '; 1 << 20]).unwrap()), 413),
        ("a GET", change(|request| *request.method_mut() = Method::GET), 400),
        ("another path", change(|request| *request.uri_mut() = "http://a/v2/hello".parse().unwrap()), 400),
        ("a batch", change(|request| *request.uri_mut() = "http://a/v1/batch".parse().unwrap()), 400),
        ("no type", change(|request| drop(request.headers_mut().remove(CONTENT_TYPE))), 400),
        (
            "gzip",
            change(|request| drop(request.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().unwrap()))),
            400,
        ),
        ("another object", post(&String::from_utf8_lossy(&good).replace("a.b\"", "x.y\"").into_bytes()), 404),
    ] {
        let (found, failure) = rig.post(request).await.unwrap();
        assert_eq!(found.as_u16(), status, "{name}: {failure:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_harms_nobody_else() {
    let mut rig = Rig::start(ServeOptions::default()).await;
    let broken = rig.request(Pieces::whole("{\"version\":1").then(Piece::Broken));
    rig.post(broken).await.expect_err("there is no answer to half a request");
    let client = rig.client();
    rig.is_served(&client).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_does_not_arrive_and_a_connection_without_one_are_given_up() {
    let mut rig = Rig::start(ServeOptions::default()).await;
    let slow = rig.request(Pieces::whole("{\"version\":1").then(Piece::Silence));
    assert_eq!(rig.post(slow).await.unwrap(), (StatusCode::REQUEST_TIMEOUT, Failure::TooSlow));
    for beginning in [&b""[..], b"PRI * HTTP", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut silent = TcpStream::connect(rig.address).await.unwrap();
        silent.write_all(beginning).await.unwrap();
        let mut said = Vec::new();
        silent.read_to_end(&mut said).await.unwrap();
    }
    let client = rig.client();
    rig.is_served(&client).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_outlives_a_pause_longer_than_its_pings_are_apart() {
    let mut rig = Rig::start(ServeOptions::default()).await;
    let http = rig.client();
    rig.is_served(&http).await;
    rig.env.sleep(3 * HttpOptions::default().ping_interval).await;
    rig.is_served(&http).await;
    assert_eq!(http.connections_opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_opened_again() {
    let mut rig = Rig::start(ServeOptions::default()).await;
    let client = rig.client();
    rig.is_served(&client).await;
    rig.env.sleep(Duration::from_secs(200)).await;
    rig.is_served(&client).await;
    assert_eq!(client.connections_opened(), 2);
}

#[tokio::test]
async fn what_is_more_than_the_server_takes_at_once_is_told_to_come_back() {
    let mut rig = Rig::start(ServeOptions { requests_max: 1, ..ServeOptions::default() }).await;
    let client = rig.client();
    let (first, ()) = tokio::join!(client.call(&parent(), hello()), async {
        let delivery = rig.inbox.recv().await.unwrap();
        let busy = client.call(&parent(), hello()).await.unwrap();
        assert_eq!(busy.refusal, Some(Refusal::Busy));
        delivery.answer.send(answer()).unwrap();
    });
    assert_eq!(first, Ok(answer()));
    assert_eq!(client.connections_opened(), 1);

    let rig = Rig::start(ServeOptions { memory_bytes_max: 100, ..ServeOptions::default() }).await;
    let busy = rig.client().call(&parent(), hello()).await.unwrap();
    assert_eq!(busy.refusal, Some(Refusal::Busy));
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let mut rig = Rig::start(ServeOptions { connections_max: 1, ..ServeOptions::default() }).await;
    let (first, second) = (rig.client(), rig.client());
    rig.is_served(&first).await;
    let waiting = begin(second.call(&parent(), hello()));
    rig.is_served(&first).await;
    assert!(!waiting.is_finished() && rig.inbox.is_empty());
    drop(first);
    rig.inbox.recv().await.unwrap().answer.send(answer()).unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(answer()));
}

#[tokio::test]
async fn an_object_that_drops_a_request_gives_no_answer_and_one_that_is_dropped_is_told() {
    let mut rig = Rig::start(ServeOptions::default()).await;
    let client = rig.client();
    let (called, ()) =
        tokio::join!(client.call(&parent(), hello()), async { drop(rig.inbox.recv().await.unwrap()) });
    assert_eq!(called, Err(TransportError::NoAnswer { object: parent() }));
    let call = begin(client.call(&parent(), hello()));
    let mut delivery = rig.inbox.recv().await.unwrap();
    call.abort();
    delivery.answer.closed().await;
    rig.is_served(&client).await;
    assert_eq!(client.connections_opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_ending_server_lets_requests_end_but_does_not_wait_for_ever() {
    let mut rig = Rig::start(ServeOptions::default()).await;
    let client = rig.client();
    let call = begin(client.call(&parent(), hello()));
    let delivery = rig.inbox.recv().await.unwrap();
    rig.stop.send(true).unwrap();
    delivery.answer.send(answer()).unwrap();
    assert_eq!(call.await.unwrap(), Ok(answer()), "it was under way");
    (&mut rig.ended).await.unwrap();
    let absent = client.call(&parent(), hello()).await;
    assert!(matches!(absent, Err(TransportError::Unreachable { .. })));

    let mut rig = Rig::start(ServeOptions::default()).await;
    let call = begin(rig.client().call(&parent(), hello()));
    let _unanswered = rig.inbox.recv().await.unwrap();
    drop(rig.stop);
    rig.ended.await.unwrap();
    assert_eq!(call.await.unwrap(), Err(TransportError::NoAnswer { object: parent() }));
}

/// A server that answers every request with the same.
async fn answering(env: &Tokio, status: u16, text: impl Into<Bytes>) -> Http<Tokio> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = client(env, listener.local_addr().unwrap());
    let (text, env) = (text.into(), env.clone());
    env.clone().spawn(async move {
        let (conn, _) = listener.accept().await.unwrap();
        let service = service_fn(move |_: hyper::Request<Incoming>| {
            let response = Response::builder().status(status).body(Full::new(text.clone())).unwrap();
            async { Ok::<_, Infallible>(response) }
        });
        let server = hyper::server::conn::http2::Builder::new(Spawner::new(&env));
        drop(server.serve_connection(Io(conn), service).await);
    });
    http
}

#[tokio::test]
async fn what_is_not_an_answer_is_a_bad_one() {
    let env = Tokio::current();
    let long = vec![b' '; wire::ANSWER_BYTES_MAX + 1];
    let refused = wire::encode_failure(Failure::BadRequest { reason: "why".to_owned() });
    for (status, text) in [(200, b"garbage".to_vec()), (200, refused.clone()), (200, long), (500, vec![])] {
        let http = answering(&env, status, text).await;
        let called = http.call(&parent(), hello()).await;
        assert!(matches!(called, Err(TransportError::BadAnswer { .. })), "{status}: {called:?}");
    }
    let called = answering(&env, 400, refused).await.call(&parent(), hello()).await;
    assert_eq!(called, Err(TransportError::Refused { object: parent(), reason: "why".to_owned() }));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_or_speaks_otherwise_is_given_up() {
    let env = Tokio::current();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = client(&env, silent.local_addr().unwrap());
    let began = env.now();
    let called = http.call(&parent(), hello()).await;
    assert_eq!(called, Err(TransportError::NoAnswer { object: parent() }));
    assert!(
        env.now() - began < Duration::from_secs(29),
        "a dead connection is found before the call is late"
    );

    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = client(&env, other.local_addr().unwrap());
    let (called, ()) = tokio::join!(http.call(&parent(), hello()), async {
        let (mut conn, _) = other.accept().await.unwrap();
        conn.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    assert_eq!(called, Err(TransportError::NoAnswer { object: parent() }));
}

#[tokio::test]
async fn other_addresses_than_loopback_are_for_simulations() {
    let env = Tokio::current();
    let all = "0.0.0.0:0".parse().unwrap();
    let bound = HttpServer::bind(env.clone(), all, Reach::Loopback, ServeOptions::default()).await;
    let error = bound.unwrap_err();
    assert!(matches!(error, HttpError::NotLoopback { .. }));
    assert!(error.to_string().contains("authentication does not exist yet"), "{error}");
    let far = "10.0.0.1:80".parse().unwrap();
    let reach = |reach| Http::new(env.clone(), reach, HttpOptions::default()).set_endpoint(parent(), far);
    assert!(matches!(reach(Reach::Loopback), Err(HttpError::NotLoopback { .. })));
    reach(Reach::Simulated).unwrap();
    let server = HttpServer::bind(env.clone(), all, Reach::Simulated, ServeOptions::default()).await.unwrap();
    let taken =
        HttpServer::bind(env.clone(), server.address(), Reach::Simulated, ServeOptions::default()).await;
    assert!(matches!(taken, Err(HttpError::Listen { .. })));
}

#[tokio::test]
async fn an_endpoint_that_is_forgotten_ends_its_connection() {
    let mut rig = Rig::start(ServeOptions { connections_max: 1, ..ServeOptions::default() }).await;
    let (first, second) = (rig.client(), rig.client());
    rig.is_served(&first).await;
    first.remove_endpoint(&parent());
    rig.is_served(&second).await;
    let called = Arc::new(first).call(&parent(), hello()).await;
    assert!(matches!(called, Err(TransportError::Unreachable { .. })));
}
