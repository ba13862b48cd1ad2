//! The checkers. They look at logs and marks only and know nothing of how the machines work.

use std::collections::BTreeMap;

use cdc_model::{Epoch, ObjectId, Record, Sequence};

use super::{Node, World};

/// Which event a row holds.
fn event(row: &Record) -> (ObjectId, Epoch, u64) {
    (row.origin.source().clone(), row.origin.epoch(), row.origin_sequence.get())
}

impl World {
    /// What must hold at every moment.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        for node in &self.nodes {
            check_log(node)?;
        }
        for child in 0..self.nodes.len() - 1 {
            let (below, above) = (&self.nodes[child], &self.nodes[child + 1]);
            check_link(below, above)?;
            let mark = mark_of(below, above);
            if mark < self.marks[child] {
                return Err(format!(
                    "the mark of {} went back from {} to {mark}",
                    below.id, self.marks[child]
                ));
            }
            self.marks[child] = mark;
            check_settled(below, self.nodes.last().expect("a root"))?;
        }
        Ok(())
    }

    /// What must hold once everything has healed and come to rest.
    pub(crate) fn check_arrived(&mut self) -> Result<(), String> {
        for child in 0..self.nodes.len() - 1 {
            if let Some(stop) = self.stop_of(child) {
                return Err(format!("the link of {} stopped: {stop}", self.nodes[child].id));
            }
            let (below, above) = (&self.nodes[child], &self.nodes[child + 1]);
            let tail = below.disk.tail().sequence;
            let sender = below.sender.as_ref().expect("a child has a sender");
            let (mark, acked, settled) = (mark_of(below, above), sender.acked().sequence, sender.settled());
            if (mark, acked) != (tail, tail) {
                return Err(format!("{} ends at {tail}, mark {mark}, acked {acked}", below.id));
            }
            if settled != tail {
                return Err(format!("{} ends at {tail} and is settled to {settled}", below.id));
            }
        }
        Ok(())
    }
}

fn mark_of(below: &Node, above: &Node) -> Sequence {
    let link = above.disk.links.get(&below.id);
    link.and_then(|link| link.mark).map_or(Sequence::ZERO, |mark| mark.sequence)
}

/// Each event at most once, each origin's in its order, counters that agree with the rows.
fn check_log(node: &Node) -> Result<(), String> {
    let mut newest = BTreeMap::new();
    let mut foreign = 0;
    for row in &node.disk.rows {
        let (source, epoch, sequence) = event(row);
        foreign += u64::from(!row.is_own());
        if source == node.id && !row.is_own() {
            return Err(format!("{} holds its own event {sequence} as a foreign one", node.id));
        }
        if let Some(before) = newest.insert((source.clone(), epoch), sequence)
            && before >= sequence
        {
            return Err(format!("{} holds {source} {sequence} after {before}", node.id));
        }
    }
    if !node.disk.received.is_conserved() || node.disk.received.stored != foreign {
        return Err(format!("{} holds {foreign} events and counts {:?}", node.id, node.disk.received));
    }
    Ok(())
}

/// The parent holds exactly what the child's durable log holds up to the mark, after the filter, in its order; and
/// what the child believes to be stored is.
fn check_link(below: &Node, above: &Node) -> Result<(), String> {
    let mark = above.disk.links.get(&below.id).and_then(|link| link.mark);
    let at = mark.map_or(Sequence::ZERO, |mark| mark.sequence);
    if let Some(mark) = mark
        && below.disk.digest_at(at) != Some(mark.digest)
    {
        return Err(format!("the mark {at} of {} is not a place of its durable log", below.id));
    }
    let filter = below.options.filter();
    let begin = below.disk.outbound.begin.sequence;
    let upto = below.disk.rows_after(begin).take_while(|row| row.sequence <= at);
    let expected: Vec<_> = upto.filter(|row| filter.passes(row).expect("decodes")).map(event).collect();
    let came = above.disk.rows.iter().filter(|row| row.origin.route().last() == Some(&below.id));
    let found: Vec<_> = came.map(event).collect();
    if expected != found {
        return Err(format!("up to {at}, {} sent {expected:?}, {} holds {found:?}", below.id, above.id));
    }
    let acked = below.sender.as_ref().map_or(Sequence::ZERO, |sender| sender.acked().sequence);
    if acked > at {
        return Err(format!("{} believes {acked} to be stored, the mark is {at}", below.id));
    }
    Ok(())
}

/// What the child believes to be settled lies in the archived part of the root's log.
fn check_settled(node: &Node, root: &Node) -> Result<(), String> {
    let settled = node.sender.as_ref().map_or(Sequence::ZERO, cdc_relay::Sender::settled);
    let filter = node.options.filter();
    let archived = root.disk.rows.iter().take_while(|row| row.sequence <= root.disk.archived);
    let archived: std::collections::BTreeSet<_> = archived.map(event).collect();
    // What lies before a link's declared begin went another way.
    let claimed = node.disk.rows_after(node.disk.outbound.begin.sequence);
    let claimed = claimed.take_while(|row| row.sequence <= settled);
    for row in claimed.filter(|row| filter.passes(row).expect("decodes")) {
        if !archived.contains(&event(row)) {
            return Err(format!("{} believes {} to be settled, it is not archived", node.id, row.sequence));
        }
    }
    Ok(())
}
