//! The Env seam, its tokio implementation and the transports
