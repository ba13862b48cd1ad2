//! The world: objects in a chain, each with a disk and an uplink, and a network between them.

mod check;
mod node;

use std::time::Duration;

use cdc_model::{Answer, Batch, Sequence};
use cdc_relay::{Action, Cutter, Hello, LinkOptions, RequestId, Stop};
use proptest::prelude::*;

pub(crate) use node::{Disk, Node, epoch};

/// A deliberate mistake of the driver or of what stands around the machines; the checkers must see each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The sender takes every answer to a batch as an acknowledgement of it.
    AckBlindly,
    /// The receiver cuts off what an overlapping batch repeats and takes the rest on trust.
    TrimOverlap,
    /// The receiver does not compare the digest at its mark.
    IgnoreDigestReceiving,
    /// The sender's own digest is taken from the answer it is compared with.
    IgnoreDigestSending,
    /// The sender goes on from the receiver's mark with the digest its own log has there, whatever the answer says.
    TrustsMark,
    /// The sender goes on from what it has stored as acknowledged, whatever the answer to its handshake says.
    TrustsOwnAck,
    /// The receiver answers with the new mark although the commit failed.
    MarkWithoutCommit,
    /// The receiver commits events first and marks in a second transaction.
    EventsBeforeMarks,
    /// The receiver commits marks first and events in a second transaction.
    MarksBeforeEvents,
    /// The sender is told of rows that are not durable yet.
    VolatileTail,
    /// The link's generation is not stored before it is said.
    UnsavedGeneration,
    /// Every handshake gets a new generation, repeats too.
    RepeatedHandshakeGrants,
    /// A batch of an older generation is taken for one of the present.
    IgnoreGeneration,
    /// What the receiver has stored counts as settled.
    StoredIsSettled,
    /// Filtered rows are left out of the digest.
    FilterBeforeDigest,
    /// A lost mark is taken for a fresh link, by both sides.
    LostMarkIsFresh,
    /// Answers are given to whatever request is outstanding.
    AnyAnswerFits,
}

/// The mistakes of one run.
pub(crate) type Mutants = &'static [Mutant];

/// What happens next in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A packet arrives; the oldest is 0.
    Deliver(u8),
    /// A packet arrives and is still under way.
    Repeat(u8),
    /// A packet is lost.
    Drop(u8),
    /// Time passes until the next timer.
    Tick,
    /// An object loses what it had not synced and starts again.
    Restart(u8),
    /// The object's next commits fail.
    FailCommits(u8, u8),
    /// The object writes a row that is not synced yet.
    Write(u8),
    /// The object syncs what it has written.
    Sync(u8),
    /// The root's archive takes one more row.
    Archive,
    /// The object is asked to flush.
    Flush(u8),
}

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// How many objects the chain has, the root last.
    pub(crate) nodes: u8,
    /// The settings of every link.
    pub(crate) options: LinkOptions,
    /// What happens before the network heals.
    pub(crate) steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Ask {
    Hello(Hello),
    Batch(Batch),
}

#[derive(Clone, Debug)]
enum Packet {
    Ask { from: usize, request: RequestId, ask: Ask },
    Answer { to: usize, request: RequestId, answer: Answer, asked: Ask },
}

/// Objects in a chain: object `n` sends to object `n + 1`, the last is the root. In a ring the last sends to the first.
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) now: Duration,
    pub(crate) mutants: Mutants,
    network: Vec<Packet>,
    sessions: u64,
    wake: Vec<Option<Duration>>,
    pub(crate) marks: Vec<Sequence>,
}

pub(crate) fn small_options() -> LinkOptions {
    LinkOptions {
        batch_size: 2,
        batch_timeout_ms: 200,
        answer_timeout_ms: 500,
        backoff_base_ms: 100,
        backoff_max_ms: 1_000,
        breaker_failures: 4,
        breaker_pause_ms: 500,
        scan_positions_max: 3,
        ..LinkOptions::default()
    }
}

impl World {
    /// A circle, closed everywhere at once.
    pub(crate) fn ring(nodes: u8) -> Self {
        let mut world = Self::new(nodes, &small_options(), &[]);
        let root = world.nodes.len() - 1;
        world.nodes[root].parent = Some(world.nodes[0].id.clone());
        world.start(root);
        world.drive_all();
        world
    }

    pub(crate) fn new(nodes: u8, options: &LinkOptions, mutants: Mutants) -> Self {
        let nodes: Vec<_> = (0..nodes).map(|n| Node::new(n, nodes, options.clone())).collect();
        let mut world = Self {
            now: Duration::from_secs(1),
            mutants,
            network: Vec::new(),
            sessions: 0,
            wake: vec![None; nodes.len()],
            marks: vec![Sequence::ZERO; nodes.len()],
            nodes,
        };
        (0..world.nodes.len()).for_each(|n| world.start(n));
        world.drive_all();
        world
    }

    /// Runs a scenario: the checkers look after every step; then everything heals and must arrive.
    pub(crate) fn run(scenario: &Scenario, mutants: Mutants) -> Result<Self, String> {
        let mut world = Self::new(scenario.nodes, &scenario.options, mutants);
        for (n, step) in scenario.steps.iter().enumerate() {
            world.step(*step);
            world.check().map_err(|why| format!("after step {n}, {step:?}: {why}"))?;
        }
        world.heal().map_err(|why| format!("healing: {why}"))?;
        world.check_arrived().map_err(|why| format!("after healing: {why}"))?;
        Ok(world)
    }

    pub(crate) fn step(&mut self, step: Step) {
        let count = self.nodes.len();
        let node = |n: u8| usize::from(n) % count;
        match step {
            Step::Deliver(n) => self.deliver(n, false),
            Step::Repeat(n) => self.deliver(n, true),
            Step::Drop(n) => drop(self.take(n)),
            Step::Tick => self.tick(),
            Step::Restart(n) => self.restart(node(n)),
            Step::FailCommits(n, times) => self.nodes[node(n)].fail_commits = times,
            Step::Write(n) => self.nodes[node(n)].write(self.now),
            Step::Sync(n) => self.nodes[node(n)].sync(),
            Step::Archive => self.nodes[count - 1].archive_one(),
            Step::Flush(n) => self.nodes[node(n)].sender.iter_mut().for_each(cdc_relay::Sender::flush),
        }
        self.drive_all();
    }

    /// The network carries, disks commit, everything is synced and archived, until all is quiet.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        for node in &mut self.nodes {
            node.fail_commits = 0;
            node.sync();
        }
        for _ in 0..400 {
            while !self.network.is_empty() {
                self.step(Step::Deliver(0));
                self.check()?;
            }
            self.nodes.last_mut().expect("a root").archive_all();
            self.step(Step::Tick);
            self.check()?;
            if self.network.is_empty() && self.wake.iter().all(Option::is_none) {
                return Ok(());
            }
        }
        Err("it never becomes quiet".to_owned())
    }

    /// The network carries and the root archives until all is quiet, unchecked and for a bounded time.
    pub(crate) fn carry(&mut self) {
        self.carry_with(Node::archive_all);
    }

    /// The same with a root that archives nothing, so that links go on asking what is settled.
    pub(crate) fn carry_unarchived(&mut self) {
        self.carry_with(|_| ());
    }

    fn carry_with(&mut self, archive: fn(&mut Node)) {
        for _ in 0..60 {
            (0..8).for_each(|_| self.step(Step::Deliver(0)));
            archive(self.nodes.last_mut().expect("a root"));
            if self.network.is_empty() && self.wake.iter().all(Option::is_none) {
                return;
            }
            self.step(Step::Tick);
        }
    }

    pub(crate) fn restart(&mut self, n: usize) {
        self.nodes[n].crash();
        self.start(n);
    }

    pub(crate) fn start(&mut self, n: usize) {
        self.sessions += 1;
        let mutants = self.mutants;
        self.nodes[n].start(self.sessions, mutants);
    }

    pub(crate) fn stop_of(&mut self, n: usize) -> Option<Stop> {
        let action = self.nodes[n].sender.as_mut()?.poll(self.now);
        if let Action::Stopped(stop) = action { Some(stop) } else { None }
    }

    fn take(&mut self, n: u8) -> Option<Packet> {
        let at = usize::from(n).checked_rem(self.network.len())?;
        Some(self.network.remove(at))
    }

    fn deliver(&mut self, n: u8, keep: bool) {
        let Some(packet) = self.take(n) else { return };
        if keep && self.network.len() < 12 {
            self.network.push(packet.clone());
        }
        match packet {
            Packet::Ask { from, request, ask } => {
                let (now, mutants) = (self.now, self.mutants);
                let above = (from + 1) % self.nodes.len();
                let Some(parent) = self.nodes.get_mut(above) else { return };
                let answer = match &ask {
                    Ask::Hello(hello) => parent.greet(hello, mutants),
                    Ask::Batch(batch) => parent.receive(now, batch, mutants),
                };
                if let Some(answer) = answer {
                    self.network.push(Packet::Answer { to: from, request, answer, asked: ask });
                }
            }
            Packet::Answer { to, request, answer, asked } => self.answer(to, request, answer, &asked),
        }
    }

    fn answer(&mut self, to: usize, request: RequestId, mut answer: Answer, asked: &Ask) {
        let node = &mut self.nodes[to];
        let Some(sender) = &mut node.sender else { return };
        let is = |mutant| self.mutants.contains(&mutant);
        match asked {
            Ask::Batch(batch) if is(Mutant::AckBlindly) => {
                answer.mark = Some(batch.mark());
                answer.refusal = None;
            }
            Ask::Hello(_) if is(Mutant::TrustsOwnAck) => {
                answer.mark = Some(cdc_model::Mark::at(node.epoch, sender.acked()));
                answer.settled = Sequence::ZERO;
            }
            Ask::Hello(_) | Ask::Batch(_) => {}
        }
        if is(Mutant::TrustsMark)
            && let Some(mark) = &mut answer.mark
        {
            mark.digest = node.cache.digest_at(mark.sequence).unwrap_or(mark.digest);
        }
        let request = match node.asked {
            Some(outstanding) if is(Mutant::AnyAnswerFits) => outstanding,
            _ => request,
        };
        node.claimed = answer.mark.map(|mark| mark.digest);
        sender.handle_answer(self.now, request, answer);
    }

    /// Time passes until the next timer of anybody, a second when there is none.
    fn tick(&mut self) {
        let next = self.wake.iter().flatten().min().copied();
        self.now = next.unwrap_or(self.now + Duration::from_secs(1)).max(self.now);
    }

    fn drive_all(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.drive(n));
    }

    /// The driver of one uplink: tells it of the log, does what it asks, until it rests.
    fn drive(&mut self, n: usize) {
        let (now, mutants) = (self.now, self.mutants);
        let node = &mut self.nodes[n];
        self.wake[n] = None;
        let tail = if mutants.contains(&Mutant::VolatileTail) { node.cache.tail() } else { node.disk.tail() };
        let Some(sender) = &mut node.sender else { return };
        sender.handle_tail(now, tail);
        for _ in 0..1_000 {
            let sender = node.sender.as_mut().expect("checked");
            match sender.poll(now) {
                Action::Save { request, link } => {
                    let saved = mutants.contains(&Mutant::UnsavedGeneration)
                        || node.commit(|disk| disk.outbound = link);
                    let sender = node.sender.as_mut().expect("checked");
                    if saved {
                        sender.handle_saved(request);
                    } else {
                        sender.handle_failure(now, request);
                    }
                }
                Action::Handshake { request, hello } => {
                    node.asked = Some(request);
                    self.network.push(Packet::Ask { from: n, request, ask: Ask::Hello(hello) });
                }
                Action::Send { request, batch } => {
                    node.asked = Some(request);
                    self.network.push(Packet::Ask { from: n, request, ask: Ask::Batch(batch) });
                }
                Action::Cut { request, cut } => {
                    let filter = std::sync::Arc::clone(&cut.filter);
                    let mut cutter = Cutter::new(cut);
                    for row in node.cache.rows_after(cutter.position().sequence) {
                        if mutants.contains(&Mutant::FilterBeforeDigest)
                            && !filter.passes(row).expect("decodes")
                        {
                            let mut empty = row.clone();
                            empty.body = cdc_model::Body::from_stored("{}");
                            if cutter.keep_back(&empty).expect("dense").is_break() {
                                break;
                            }
                        } else if cutter.push(row.clone()).expect("dense").is_break() {
                            break;
                        }
                    }
                    node.sender.as_mut().expect("checked").handle_batch_cut(now, request, cutter.finish());
                }
                Action::Compare { request, at } => {
                    let ignored = mutants.contains(&Mutant::IgnoreDigestSending);
                    let own = if ignored { node.claimed } else { node.cache.digest_at(at) };
                    node.sender.as_mut().expect("checked").handle_digest(now, request, own);
                }
                Action::Wait(until) => {
                    assert!(until > now, "waiting for the past");
                    self.wake[n] = Some(until);
                    return;
                }
                Action::Idle | Action::Stopped(_) => return,
            }
        }
        panic!("the sender never rests: {:?}", node.sender);
    }
}

pub(crate) fn step(nodes: u8) -> impl Strategy<Value = Step> {
    let node = 0..nodes;
    prop_oneof![
        12 => (0_u8..4).prop_map(Step::Deliver),
        3 => (0_u8..4).prop_map(Step::Repeat),
        2 => (0_u8..4).prop_map(Step::Drop),
        3 => Just(Step::Tick),
        2 => node.clone().prop_map(Step::Restart),
        1 => (node.clone(), 1_u8..3).prop_map(|(node, times)| Step::FailCommits(node, times)),
        6 => node.clone().prop_map(Step::Write),
        4 => node.clone().prop_map(Step::Sync),
        2 => Just(Step::Archive),
        1 => node.prop_map(Step::Flush),
    ]
}

pub(crate) fn scenario(nodes: u8) -> impl Strategy<Value = Scenario> {
    let filtered = prop_oneof![Just(vec![]), Just(vec!["a".to_owned()])];
    (prop::collection::vec(step(nodes), 0..70), filtered, 1_usize..4).prop_map(
        move |(steps, collections, batch_size)| Scenario {
            nodes,
            options: LinkOptions { collections, batch_size, ..small_options() },
            steps,
        },
    )
}
