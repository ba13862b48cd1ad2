//! Hot tier: capture by triggers, drain and the object's log, over rusqlite
