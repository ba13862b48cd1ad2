//! The transport between processes: HTTP/2 over whatever connections the [`Env`](crate::Env) gives.

mod client;
pub use client::{Http, HttpOptions};
mod over_env;
mod server;
pub use server::{HttpServer, ServeOptions};
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;

/// Which addresses are listened on and connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only this machine: whoever connects is not authenticated.
    Loopback,
    /// Every address of a network that exists in a simulation only.
    Simulated,
}

/// Why an address is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Other machines could connect.
    #[error(
        "{address} is not a loopback address, and authentication does not exist yet: use 127.0.0.1 or [::1]"
    )]
    NotLoopback {
        /// The address refused.
        address: SocketAddr,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The system's own error.
        source: io::Error,
    },
}

impl Reach {
    const fn check(self, address: SocketAddr) -> Result<(), HttpError> {
        match self {
            Self::Loopback if !address.ip().is_loopback() => Err(HttpError::NotLoopback { address }),
            Self::Loopback | Self::Simulated => Ok(()),
        }
    }
}
