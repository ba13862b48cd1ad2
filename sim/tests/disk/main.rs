//! The simulated disk. A binary of its own, because installing the disk changes SQLite for the whole process.

mod attached;
mod bench;
mod connections;
mod crashes;
mod faults;
mod ledger;
mod made;
mod speed;
mod unsynced;
