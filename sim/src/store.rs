//! A simulated object store, archives stepped on it as wholes, and an oracle that reads tables without the system.
//!
//! The store is strongly consistent, as S3 is. Which request fails and how is drawn from its own stream of random
//! numbers; the same seed gives the same sequence of requests and outcomes, as a hash. File names need not be made
//! alike for it: all that the archive writes is named from the entropy handed to it. Bytes of Avro files do differ from
//! run to run, by a random marker and by the order of maps in them, but not their sizes; so sizes go into the hash and
//! bytes do not.

mod counts;
pub use counts::StoreCounts;
mod faults;
pub use faults::StoreFaults;
mod host;
pub use host::HostStore;
mod objects;
mod requests;
pub use requests::SimStore;
mod runtime;
pub use runtime::Steps;
mod table;
pub use table::{NewRows, Orphans, Row, TableOracle, Violation, Watermark};
