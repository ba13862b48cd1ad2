//! Replays over tiers in memory, compared with what a plain loop over the whole log gives.

#[cfg(test)]
mod world;

#[cfg(test)]
mod audits;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod folds;
#[cfg(test)]
mod history;
#[cfg(test)]
mod positions;
#[cfg(test)]
mod stitching;
