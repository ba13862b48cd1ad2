//! Which objects there are, who is whose parent, and where they live.

use std::collections::BTreeSet;
use std::path::PathBuf;

use cdc_model::ObjectId;

use crate::plan::Options;
use crate::random::Random;

/// One object of a world.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) id: ObjectId,
    pub(crate) parent: Option<usize>,
    pub(crate) depth: usize,
    pub(crate) host: usize,
    /// Whether its log is archived.
    pub(crate) archives: bool,
    /// Whether it keeps back its children's events of some collections.
    pub(crate) filters: bool,
    /// Whether it has a stage that rejects its children's events of some kind.
    pub(crate) rejects: bool,
    /// Whether it counts its children's events.
    pub(crate) counts: bool,
    /// Whether something consumes its log with effects in its own database.
    pub(crate) consumes: bool,
    /// Whether its writes are acknowledged before they are on disk.
    pub(crate) normal: bool,
    /// How the application works whose database it is attached to; `None` when the engine owns the database.
    pub(crate) attached: Option<Habits>,
}

/// How an application treats its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Habits {
    pub(crate) journal: Journal,
    /// What it demands of a commit, as SQLite calls it.
    pub(crate) synchronous: &'static str,
    /// Whether it changes its journal now and then.
    pub(crate) may_flip: bool,
    /// Whether it changes the captured tables now and then.
    pub(crate) may_redesign: bool,
    /// Whether it then also writes them around capture: audits find it.
    pub(crate) may_bypass: bool,
    /// Whether the tables hold many rows before they are captured.
    pub(crate) is_filled: bool,
}

impl Habits {
    fn draw(random: &mut Random, may_redesign: bool) -> Self {
        let journal = *random.pick(&Journal::ALL);
        let (is_weak, may_flip) = (random.chance(25), random.chance(30));
        let (synchronous, may_flip) = match (is_weak, journal) {
            (true, Journal::Wal) => ("normal", false),
            // The folder from which the journal was deleted is not synced.
            (true, Journal::Delete) => ("full", false),
            _ => ("extra", may_flip),
        };
        Self { journal, synchronous, may_flip, may_redesign, may_bypass: false, is_filled: false }
    }

    /// Whether a loss of power may damage the database.
    pub(crate) fn is_reckless(self) -> bool {
        self.synchronous == "off"
    }

    /// Whether a loss of power may take what was committed.
    pub(crate) fn is_weak(self) -> bool {
        self.synchronous != "extra"
    }
}

/// How an application's database commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    Delete,
    Truncate,
    Persist,
    Wal,
}

impl Journal {
    pub(crate) const ALL: [Self; 4] = [Self::Delete, Self::Truncate, Self::Persist, Self::Wal];

    /// What SQLite calls it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Truncate => "truncate",
            Self::Persist => "persist",
            Self::Wal => "wal",
        }
    }
}

impl Place {
    /// The file of its log, below the folder of its process.
    pub(crate) fn log_file(&self) -> PathBuf {
        let name = if self.attached.is_some() { "log.db" } else { "object.db" };
        cdc::object_folder(&self.id).join(name)
    }

    /// The file that its tables are in, below the folder of its process.
    pub(crate) fn tables_file(&self, at: usize) -> PathBuf {
        if self.attached.is_some() { format!("app-{at}.db").into() } else { self.log_file() }
    }
}

/// The objects, parents before children; the first is the root.
pub(crate) fn draw(seed: u64, options: &Options) -> Vec<Place> {
    let mut random = Random::stream(seed, "topology");
    let mut places: Vec<Place> = Vec::with_capacity(options.objects);
    let mut children = vec![0_usize; options.objects];
    // Objects that may still get children; the newest are likelier, so that trees get deep.
    let mut open: Vec<usize> = Vec::new();
    for index in 0..options.objects {
        let parent = if open.is_empty() { None } else { Some(pick(&mut random, &open)) };
        let depth = parent.and_then(|parent| places.get(parent)).map_or(1, |parent| parent.depth + 1);
        let host = match parent.and_then(|parent| places.get(parent)) {
            Some(parent) if random.chance(options.near_percent) => parent.host,
            _ => random.place(options.hosts),
        };
        let archives = options.archive_percent.is_some_and(|percent| index == 0 || random.chance(percent));
        places.push(Place {
            id: id(index, parent),
            parent,
            depth,
            host,
            archives,
            filters: random.chance(options.filter_percent),
            rejects: false,
            counts: random.chance(options.count_percent),
            consumes: random.chance(options.consume_percent),
            normal: false,
            attached: None,
        });
        if let Some(parent) = parent
            && let Some(count) = children.get_mut(parent)
        {
            *count += 1;
            if *count >= options.fan_out_max {
                open.retain(|at| *at != parent);
            }
        }
        if depth < options.depth_max.max(2) {
            open.push(index);
        }
        if open.is_empty() {
            // Full: the widest level goes on being filled, whatever the fan-out says.
            open.push(0);
        }
    }
    let mut rejects = Random::stream(seed, "rejects");
    places.iter_mut().for_each(|place| place.rejects = rejects.chance(options.reject_percent));
    attach(seed, options, &mut places);
    let mut normal = Random::stream(seed, "normal objects");
    for place in &mut places {
        place.normal = normal.chance(options.normal_percent) && place.attached.is_none();
    }
    places
}

/// The pairs of processes between which there is a link.
pub(crate) fn linked_hosts(seed: u64, options: &Options) -> Vec<(usize, usize)> {
    let places = draw(seed, options);
    let link = |place: &Place| {
        let parent = places.get(place.parent?)?.host;
        (parent != place.host).then_some((parent.min(place.host), parent.max(place.host)))
    };
    let pairs: BTreeSet<_> = places.iter().filter_map(link).collect();
    pairs.into_iter().collect()
}

fn attach(seed: u64, options: &Options, places: &mut [Place]) {
    let mut random = Random::stream(seed, "attached");
    let mut redesigned = Random::stream(seed, "redesigned");
    let mut reckless = Random::stream(seed, "reckless");
    let mut filled = Random::stream(seed, "filled databases");
    for place in places.iter_mut() {
        let mut habits = Habits::draw(&mut random, redesigned.chance(options.redesigned_percent));
        if reckless.chance(options.reckless_percent) {
            habits.synchronous = "off";
        }
        habits.is_filled = filled.chance(options.filled_percent);
        habits.may_bypass = habits.may_redesign && options.audit_ms > 0;
        if random.chance(options.attached_percent) {
            place.attached = Some(habits);
            // The project archives what is attached below a parent with its ancestors only.
            place.archives &= place.parent.is_none();
        }
    }
}

fn pick(random: &mut Random, open: &[usize]) -> usize {
    let at = if random.chance(30) { open.len() - 1 } else { random.place(open.len()) };
    open.get(at).copied().unwrap_or_default()
}

fn id(index: usize, parent: Option<usize>) -> ObjectId {
    let text = match parent {
        None => "https://sim.test/".to_owned(),
        Some(parent) => format!("https://sim.test/{parent}/{index}"),
    };
    text.parse().expect("a simulated object has a valid id")
}
