//! The hop between an object and its parent, as machines without I/O: sending, receiving, stages and the
//! translation of acknowledgements.
//!
//! Nothing here reads a clock, a disk or a network, draws a random number or awaits anything. A driver feeds inputs
//! and does what the machines ask; the same driver calls work in production and in simulation. Storage, transport
//! and the choice of a parent are somebody else's.
//!
//! ```
//! use std::time::Duration;
//! use cdc_model::{ChangeBody, Epoch, Operation, Origin, Position, Record, Sequence, Timestamp};
//! use cdc_relay::{Action, Cutter, LinkOptions, OriginMark, Outbound, Receiver, Sender, Setup};
//!
//! // A child's log of three rows, and its digest.
//! let (child, parent) = ("https://crm.headless.ly/acme".parse()?, "https://crm.headless.ly".parse()?);
//! let epoch = Epoch { number: 1, nonce: 7 };
//! let origin = Origin::new(cdc_model::ObjectId::clone(&child), epoch, vec![]);
//! let row = |n: u64| Record {
//!     sequence: Sequence::new(n), timestamp: Timestamp::new(0), epoch, origin: origin.clone(),
//!     origin_sequence: Sequence::new(n), origin_timestamp: Timestamp::new(0),
//!     body: ChangeBody::new(Operation::Insert, "customers", n.to_string()).to_body(),
//! };
//! let log: Vec<Record> = (1..=3).map(row).collect();
//! let digest = log.iter().fold(Position::START.digest, |before, row| row.digest(before));
//! let tail = Position { sequence: Sequence::new(3), digest };
//!
//! let mut sender = Sender::new(Setup {
//!     id: child, receiver: cdc_model::ObjectId::clone(&parent), epoch, options: LinkOptions::default(),
//!     link: Outbound::NEW, tail, floor: Sequence::new(1), session: 42,
//! })?;
//! let receiver = Receiver { id: parent, ancestors: vec![] };
//! let (mut link, mut stored) = (None, Vec::new()); // What the parent has on disk.
//!
//! let now = Duration::ZERO;
//! while sender.acked() != tail {
//!     match sender.poll(now) {
//!         Action::Save { request, .. } => sender.handle_saved(request),
//!         Action::Handshake { request, hello } => {
//!             link = Some(receiver.greet(link.as_ref(), &hello)?);
//!             sender.handle_answer(now, request, receiver.answer(link.as_ref(), Sequence::ZERO, None));
//!         }
//!         Action::Cut { request, cut } => {
//!             let mut cutter = Cutter::new(cut);
//!             for row in &log {
//!                 if cutter.push(row.clone())?.is_break() { break }
//!             }
//!             sender.handle_batch_cut(now, request, cutter.finish());
//!         }
//!         Action::Send { request, batch } => {
//!             let refusal = match receiver.admit(link.as_ref(), &batch) {
//!                 Ok(admitted) => {
//!                     let plan = admitted.plan(|_, _| Ok::<_, std::io::Error>(OriginMark::default()))?;
//!                     stored.extend(batch.records); // One transaction with the marks of the plan.
//!                     link = Some(plan.link);
//!                     None
//!                 }
//!                 Err(refusal) => Some(refusal),
//!             };
//!             sender.handle_answer(now, request, receiver.answer(link.as_ref(), Sequence::ZERO, refusal));
//!         }
//!         other => panic!("{other:?}"),
//!     }
//! }
//! assert_eq!(stored, log);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acks;
pub use acks::{AckMap, Covered};
mod action;
pub use action::{Action, RequestId};
mod cut;
pub use cut::{Cut, Cutter, Slice};
mod error;
pub use error::Error;
mod forwarded;
pub use forwarded::Forwarded;
mod grant;
pub use grant::{GrantRequest, Granted};
mod link;
pub use link::{DEPTH_MAX, Hello, Inbound, Outbound};
mod options;
pub use options::LinkOptions;
mod receiver;
pub use receiver::{Admitted, Hole, Intake, OriginMark, Plan, Receiver, refused};
mod retry;
mod sender;
pub use sender::{Sender, Sent, Setup, Status};
mod stage;
pub use stage::{
    Aggregate, Count, DeadLetter, Emit, FilterStage, GroupBy, LookupError, Outcome, Pass, Stage, StageError,
    StageState, Stages, StateKey, Verdict,
};
mod stop;
pub use stop::Stop;
