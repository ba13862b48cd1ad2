//! Replay: cold and hot tiers stitched into one history, and folds of it
