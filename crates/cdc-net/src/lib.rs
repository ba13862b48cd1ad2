//! What connects objects: the [`Env`] seam over time, tasks, randomness and watched files, its tokio implementation, and the
//! [`Transport`] that carries a child's requests to its parent: within the process ([`Loopback`]) or between processes
//! ([`Http`] and [`HttpServer`]).
//!
//! Knows the model and the relay's messages; no SQLite, no Parquet, and no decision about what a message means.
//!
//! ```
//! use cdc_model::{Answer, Epoch, ObjectId, Position, Sequence};
//! use cdc_net::{Loopback, Request, Transport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (child, parent): (ObjectId, ObjectId) = ("https://crm.headless.ly/acme".parse()?, "https://crm.headless.ly".parse()?);
//! let net = Loopback::new();
//! let mut inbox = net.serve(parent.clone());
//!
//! let hello = cdc_relay::Hello {
//!     sender: child, generation: 1, session: 42, epoch: Epoch { number: 1, nonce: 7 },
//!     acked: Sequence::ZERO, tail: Position::START, floor: Sequence::new(1),
//! };
//! let serve = async {
//!     let delivery = inbox.recv().await.expect("one request");
//!     let answer = Answer { mark: None, settled: Sequence::ZERO, generation: 1, ancestors: vec![], refusal: None };
//!     delivery.answer.send(answer).expect("the child waits");
//! };
//! let (answer, ()) = tokio::join!(net.call(&parent, Request::Hello(hello)), serve);
//! assert_eq!(answer?.generation, 1);
//! # Ok(())
//! # }
//! ```

mod env;
pub use env::{Env, Watch};
mod folder_watch;
pub use folder_watch::{DatabaseFiles, FolderWatch};
mod http;
pub use http::{Http, HttpError, HttpOptions, HttpServer, Reach, ServeOptions};
mod tokio_env;
pub use tokio_env::Tokio;
mod transport;
pub use transport::{Call, Delivery, Loopback, Request, Transport, TransportError};
pub mod wire;
