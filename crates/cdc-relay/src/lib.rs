//! The hop: sender, receiver and stage machines without I/O
