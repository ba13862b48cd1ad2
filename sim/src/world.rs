//! Two objects and what happens to them. `world/crashes.rs` holds how they die and come back.

mod crashes;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use cdc_log::Tables;
use cdc_model::{Clock, ObjectId, Timestamp};
use cdc_relay::Action;
use tempfile::TempDir;

use crate::checkers::Checkers;
use crate::child::Child;
use crate::failure::{Broken, Failure};
use crate::network::{Message, Network};
use crate::object::{Ended, Object};
use crate::parent::Parent;
use crate::plan::{Crash, LIVENESS_MAX, Plan, Side, TROUBLE};
use crate::schedule::Schedule;
use crate::trace::Trace;
use crate::workload::{SCHEMA, TABLES, Transaction, Workload};
use crate::{Report, Setup};

/// How long a piece of work at a disk takes at most.
const WORK_MAX: Duration = Duration::from_millis(3);

/// Simulated time begins here.
const UNIX_MS: i64 = 1_700_000_000_000;

/// What happens in the world.
#[derive(Debug)]
enum Event {
    Write,
    /// The child's machine asked this of its own log.
    Local {
        life: u32,
        action: Action,
    },
    /// The child's machine asked to be polled.
    Wake {
        life: u32,
    },
    Arrive(u64, Message),
    /// The parent looks into its inbox.
    Serve {
        life: u32,
    },
    Crash(Crash),
    Reopen(Side),
    Heal,
    End,
}

/// Two objects, the network between them, and everything that befalls them, from one seed.
#[derive(Debug)]
pub struct World {
    seed: u64,
    setup: Setup,
    plan: Plan,
    schedule: Schedule<Event>,
    clock: Arc<AtomicI64>,
    child: Child,
    parent: Parent,
    network: Network,
    workload: Workload,
    checkers: Checkers,
    trace: Trace,
    sent: u64,
    crashes: u32,
    /// How many events the child's log held when its files were copied.
    copied: Option<usize>,
    rewound: bool,
    wake: Option<Duration>,
    is_serving: bool,
    down: [Option<Duration>; 2],
    _folder: TempDir,
}

impl World {
    /// Runs the world of a seed from its beginning to its end.
    ///
    /// # Errors
    ///
    /// The [`Failure`] that the checkers found.
    pub fn run(seed: u64, setup: Setup) -> Result<Report, Box<Failure>> {
        let fail = |broken: Broken, story: String| {
            let Broken { promise, saw } = broken;
            Box::new(Failure { seed, promise, saw, story })
        };
        let mut world = Self::new(seed, setup).map_err(|broken| fail(broken, String::new()))?;
        match world.go() {
            Ok(()) => Ok(world.report()),
            Err(broken) => Err(fail(broken, format!("{:#?}\n{}", world.plan, world.trace.story()))),
        }
    }

    fn new(seed: u64, setup: Setup) -> Result<Self, Broken> {
        let folder = new_folder()?;
        let clock = Arc::new(AtomicI64::new(UNIX_MS));
        let shown = Arc::clone(&clock);
        let now = Clock::from_fn(move || Timestamp::new(shown.load(Ordering::Relaxed)));
        let (parent_id, child_id): (ObjectId, ObjectId) =
            ("https://sim.test/parent".parse()?, "https://sim.test/parent/child".parse()?);
        let mut child = Object::create(folder.path().join("child"), child_id.clone(), now.clone())?;
        let parent = Object::create(folder.path().join("parent"), parent_id.clone(), now)?;
        let log = child.log_mut().expect("it was just made");
        log.write(|tx| tx.execute_batch(SCHEMA))?;
        log.capture(&Tables::Named(TABLES.map(str::to_owned).to_vec()))?;
        let plan = Plan::draw(seed);
        Ok(Self {
            seed,
            setup,
            schedule: Schedule::new(seed),
            clock,
            child: Child::new(child, parent_id, plan.options.clone(), seed, setup.mutant),
            parent: Parent::new(parent, setup.mutant),
            network: Network::new(seed, plan.clone(), setup.mutant),
            workload: Workload::new(seed),
            checkers: Checkers::new(child_id.to_string()),
            trace: Trace::default(),
            plan,
            sent: 0,
            crashes: 0,
            copied: None,
            rewound: false,
            wake: None,
            is_serving: false,
            down: [None; 2],
            _folder: folder,
        })
    }

    fn report(&self) -> Report {
        Report {
            hash: self.trace.hash(),
            steps: self.trace.steps(),
            written: self.checkers.written(),
            crashes: self.crashes,
            rewound: self.rewound,
        }
    }

    fn go(&mut self) -> Result<(), Broken> {
        self.trace.step(Duration::ZERO, format_args!("seed {}", self.seed));
        for crash in self.plan.crashes.clone() {
            self.schedule.at(crash.at, Event::Crash(crash));
        }
        self.schedule.at(Duration::ZERO, Event::Write);
        self.schedule.at(TROUBLE, Event::Heal);
        self.schedule.at(TROUBLE + LIVENESS_MAX, Event::End);
        self.check_child()?;
        self.child.link()?;
        while let Some(event) = self.schedule.next() {
            let now = self.schedule.now();
            let ms = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
            self.clock.store(UNIX_MS + ms, Ordering::Relaxed);
            if matches!(event, Event::End) {
                return self.end();
            }
            self.step(event)?;
            self.drive_child()?;
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Result<(), Broken> {
        match event {
            Event::Write => self.write(),
            Event::Local { life, action } if life == self.child.object.life() => self.work(action),
            Event::Wake { life } => {
                if life == self.child.object.life() {
                    self.wake = None;
                }
                Ok(())
            }
            Event::Arrive(number, message) => self.arrive(number, message),
            Event::Serve { life } if life == self.parent.object.life() => self.serve(),
            Event::Local { .. } | Event::Serve { .. } | Event::End => Ok(()),
            Event::Crash(crash) => self.begin_crash(crash),
            Event::Reopen(side) => self.reopen(side),
            Event::Heal => {
                self.trace.fault(self.now(), "healed");
                self.child.object.arm(None);
                self.parent.object.arm(None);
                Ok(())
            }
        }
    }

    const fn now(&self) -> Duration {
        self.schedule.now()
    }

    fn write(&mut self) -> Result<(), Broken> {
        let now = self.now();
        if now < TROUBLE {
            self.schedule.within(self.plan.write_pause_max, Event::Write);
        }
        if self.child.object.log().is_none() {
            return Ok(());
        }
        let transaction = self.workload.next(self.checkers.documents());
        let ended = self.child.object.commit(|log, gate| log.write(|tx| transaction.run(tx, gate)))?;
        self.trace.step(now, format_args!("child writes {}: {}", transaction.facts.len(), name(&ended)));
        self.after_write(&transaction, &ended)
    }

    fn after_write(&mut self, transaction: &Transaction, ended: &Ended<()>) -> Result<(), Broken> {
        match ended {
            Ended::Committed(()) => {
                self.checkers.committed(transaction);
                self.check_child()
            }
            Ended::GivenUp => self.check_child(),
            Ended::CrashedBefore => self.crashed(Side::Child),
            Ended::CrashedAfter(()) => {
                self.checkers.committed(transaction);
                self.crashed(Side::Child)
            }
        }
    }

    fn work(&mut self, action: Action) -> Result<(), Broken> {
        let now = self.now();
        self.child.work(now, action)?;
        if self.child.object.log().is_none() {
            self.trace.step(now, "child dies while it saves its link");
            return self.crashed(Side::Child);
        }
        Ok(())
    }

    /// Does what the child's machine says until it waits.
    fn drive_child(&mut self) -> Result<(), Broken> {
        let now = self.now();
        loop {
            let (Some(sender), Some(log)) = (self.child.sender.as_mut(), self.child.object.log()) else {
                return Ok(());
            };
            sender.handle_tail(now, log.tail());
            let life = self.child.object.life();
            let action = sender.poll(now);
            self.child.stop = if let Action::Stopped(stop) = &action { Some(stop.clone()) } else { None };
            self.checkers.check_sender(sender, self.child.stop.as_ref())?;
            match action {
                Action::Handshake { request, hello } => self.send(Message::Hello(request, hello)),
                Action::Send { request, batch } => self.send(Message::Batch(request, batch)),
                action @ (Action::Save { .. } | Action::Cut { .. } | Action::Compare { .. }) => {
                    self.schedule.within(WORK_MAX, Event::Local { life, action });
                }
                Action::Wait(until) => {
                    if self.wake.is_none_or(|wake| until < wake) {
                        self.wake = Some(until);
                        self.schedule.at(until, Event::Wake { life });
                    }
                    return Ok(());
                }
                Action::Idle | Action::Stopped(_) => return Ok(()),
            }
        }
    }

    fn send(&mut self, message: Message) {
        let now = self.now();
        self.sent += 1;
        let number = self.sent;
        let text = message.to_string();
        let arrivals = self.network.carry(now, message);
        let fate = match arrivals.as_slice() {
            [] => "lost".to_owned(),
            [(_, Message::Failed(_))] => "fails".to_owned(),
            arrivals => format!("arrives {} times", arrivals.len()),
        };
        self.trace.step(now, format_args!("#{number} {text}: {fate}"));
        for (delay, message) in arrivals {
            self.schedule.after(delay, Event::Arrive(number, message));
        }
    }

    fn arrive(&mut self, number: u64, message: Message) -> Result<(), Broken> {
        let now = self.now();
        match message {
            request @ (Message::Hello(..) | Message::Batch(..)) => {
                if self.parent.object.log().is_none() {
                    return Ok(());
                }
                self.trace.step(now, format_args!("#{number} reaches the parent"));
                self.parent.inbox.push_back(request);
                if !self.is_serving {
                    self.is_serving = true;
                    let life = self.parent.object.life();
                    self.schedule.within(WORK_MAX, Event::Serve { life });
                }
            }
            Message::Answer(request, answer) => {
                if let Some(sender) = self.child.sender.as_mut() {
                    self.trace.step(now, format_args!("#{number} reaches the child"));
                    sender.handle_answer(now, request, answer);
                }
            }
            Message::Failed(request) => {
                if let Some(sender) = self.child.sender.as_mut() {
                    sender.handle_failure(now, request);
                }
            }
        }
        Ok(())
    }

    fn serve(&mut self) -> Result<(), Broken> {
        let now = self.now();
        let ended = self.parent.serve()?;
        self.trace.step(now, format_args!("parent serves: {}", name(&ended)));
        match ended {
            Ended::Committed(answers) => {
                self.check_parent()?;
                for (request, answer) in answers {
                    self.checkers.check_answer(&answer)?;
                    self.send(Message::Answer(request, answer));
                }
                self.is_serving = !self.parent.inbox.is_empty();
                if self.is_serving {
                    let life = self.parent.object.life();
                    self.schedule.within(WORK_MAX, Event::Serve { life });
                }
                Ok(())
            }
            Ended::GivenUp => Ok(()),
            Ended::CrashedBefore | Ended::CrashedAfter(_) => self.crashed(Side::Parent),
        }
    }

    fn check_child(&mut self) -> Result<(), Broken> {
        let Some(file) = self.child.object.reader() else { return Ok(()) };
        self.checkers.check_child(file, &mut self.trace)
    }

    fn check_parent(&mut self) -> Result<(), Broken> {
        let Some(file) = self.parent.object.reader() else { return Ok(()) };
        self.checkers.check_parent(file, &mut self.trace)
    }

    fn end(&mut self) -> Result<(), Broken> {
        self.checkers.parent_reopened();
        self.check_parent()?;
        self.check_child()?;
        if self.rewound {
            return self.checkers.check_rewind_found(self.child.stop.as_ref());
        }
        self.checkers.check_arrived()
    }
}

fn name<R>(ended: &Ended<R>) -> &'static str {
    match ended {
        Ended::Committed(_) => "committed",
        Ended::GivenUp => "rolled back",
        Ended::CrashedBefore => "crashed before COMMIT",
        Ended::CrashedAfter(_) => "crashed after COMMIT",
    }
}

/// In memory where the system has such a place: what a process writes outlives its crash there too.
fn new_folder() -> Result<TempDir, Broken> {
    let memory = PathBuf::from("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}
