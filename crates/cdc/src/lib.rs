//! Change data capture for fleets of SQLite objects: the engine and its facade
