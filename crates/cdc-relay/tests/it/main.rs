//! The machines in a small world: model logs that lose what was not synced, a network that loses, repeats and
//! reorders, and checkers that look only at the logs.

#[cfg(test)]
mod world;

#[cfg(test)]
mod chains;
#[cfg(test)]
mod filters;
#[cfg(test)]
mod granting;
#[cfg(test)]
mod links;
#[cfg(test)]
mod lost_parent;
#[cfg(test)]
mod mutants;
#[cfg(test)]
mod receiving;
#[cfg(test)]
mod rewound;
#[cfg(test)]
mod sending;
#[cfg(test)]
mod stages;

#[cfg(test)]
use cdc_model::ObjectId;

/// An object of the tests.
#[cfg(test)]
fn id(name: &str) -> ObjectId {
    format!("https://{name}.test").parse().unwrap()
}
