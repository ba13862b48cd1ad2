//! What is called settled is stored at the root and in a commit of every archive on the way.

use crate::failure::{Broken, ensure};
use crate::oracle::Oracle;

/// A child was told that everything up to a position of it is settled, and how far the logs above were just then.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) child: usize,
    pub(crate) position: u64,
    /// The nearest first.
    pub(crate) above: Vec<Above>,
}

impl Claim {
    /// Whether all that it is about is known.
    pub(crate) fn is_known(&self, oracle: &Oracle) -> bool {
        let mut chain = std::iter::once(self.child).chain(self.above.iter().map(|above| above.at));
        !chain.any(|at| oracle.dirty.contains(&at))
    }
}

/// How far a log was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Above {
    pub(crate) at: usize,
    pub(crate) tail: u64,
    /// How far its archive was, in a commit; `None` where it has none.
    pub(crate) archived: Option<u64>,
}

/// Holds a claim against the logs, all of which are known.
pub(crate) fn check_settled(oracle: &Oracle, claim: &Claim) -> Result<(), Broken> {
    const PROMISE: &str = "settled is stored at the root and archived on the way";
    let Claim { child, position, above } = claim;
    let chain = std::iter::once(*child).chain(above.iter().map(|above| above.at));
    if chain.into_iter().any(|at| oracle.is_rewound(at)) {
        return Ok(());
    }
    let (mut below, mut upto) = (*child, *position);
    for Above { at, tail, archived } in above {
        let (Some(from), Some(known)) = (oracle.objects.get(below), oracle.objects.get(*at)) else { break };
        let wanted = from.last_sent(upto);
        let pairs = known.taken.get(&below).map_or(&[][..], |taken| &taken.pairs);
        let covering = pairs.partition_point(|(own, stored_as)| *own <= upto && stored_as <= tail);
        let last = covering.checked_sub(1).and_then(|last| pairs.get(last));
        let (held, stored_as) = last.copied().unwrap_or((0, 0));
        ensure(held >= wanted, PROMISE, || {
            format!(
                "object {child} was told {position}; then object {at} held {held} of {wanted} of object {below}"
            )
        })?;
        ensure(archived.is_none_or(|archived| archived >= stored_as), PROMISE, || {
            format!(
                "object {child} was told {position}; object {at} holds that up to its own {stored_as} and had \
                 archived {archived:?}"
            )
        })?;
        (below, upto) = (*at, stored_as);
    }
    Ok(())
}
