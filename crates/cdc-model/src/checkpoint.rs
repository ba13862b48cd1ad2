use serde::{Deserialize, Serialize};

use crate::{Cursor, Timestamp};

/// A subscriber's saved cursor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Whose it is.
    pub subscriber_id: String,
    /// The last record the subscriber has taken.
    pub cursor: Cursor,
    /// When it was first saved.
    pub created_at: Timestamp,
    /// When it was last saved.
    pub updated_at: Timestamp,
    /// Whatever the subscriber keeps beside it; kept when a save leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<serde_json::Value>,
    /// Counts forced moves; a save based on an older revision is refused.
    #[serde(default)]
    pub revision: u64,
}
