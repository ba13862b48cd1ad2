//! Workload generator and benchmarks.
//!
//! Every figure is a comparison of [`Side`]s: the same rows stored or read by this project and by the barest code
//! that does the same, in the same process, alternating in short rounds. What counts is the ratio within a round, so
//! that a slow moment of the machine hits both. The program `report` prints all figures; `cargo bench` times the same
//! sides one by one.
//!
//! This crate measures. It proves nothing about correctness beyond checking that both sides stored the same.
//!
//! ```
//! use benches::{Rng, Shape};
//!
//! let shape = Shape::narrow();
//! let (mut once, mut again) = (Rng::new(7), Rng::new(7));
//! assert_eq!(shape.columns(), 3);
//! assert_eq!(shape.row(&mut once, 1), shape.row(&mut again, 1));
//! ```

mod append;
pub use append::{AppendOptions, BareAppend, LogAppend, Whose, append_sides};
#[cfg(feature = "engine")]
mod archive;
#[cfg(feature = "engine")]
pub use archive::{ArchiveAppend, ParquetWriter, archive_sides};
mod capture;
pub use capture::{CaptureOptions, Captured, How, capture_sides};
#[cfg(feature = "engine")]
mod cold;
#[cfg(feature = "engine")]
pub use cold::{ColdRead, HotRead, cold_sides};
#[cfg(feature = "engine")]
mod density;
#[cfg(feature = "engine")]
pub use density::{DensityFigure, DensityOptions, density};
mod drain;
pub use drain::{BareDrain, Drain, drain_sides};
mod figure;
pub use figure::{Figure, Kind};
mod hop;
pub use hop::{BareHop, Hop, hop_sides};
mod inbox;
pub use inbox::{Inbox, inbox_sides};
mod measure;
pub use measure::{Compared, Cost, Metric, Side, Stopwatch, compare, cpu_time, cpu_time_of, timed};
mod range;
pub use range::{RangeRead, RangeStyle, range_sides};
#[cfg(feature = "engine")]
mod replay;
#[cfg(feature = "engine")]
pub use replay::{FacadeRead, ReplayHistory, replay_sides};
mod stored;
#[cfg(feature = "engine")]
mod tree;
#[cfg(feature = "engine")]
pub use tree::{Tree, TreeOptions, TreeResult};
mod workload;
pub use workload::{Batches, Rng, Shape, bodies, object, origin};

/// Whatever went wrong; a benchmark can only give up.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The result of setting up or running one side.
pub type Result<T> = std::result::Result<T, Error>;
