//! Which objects there are, who is whose parent, and where they live.

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
    /// Whether it counts its children's events.
    pub(crate) counts: bool,
    /// Whether something consumes its log with effects in its own database.
    pub(crate) consumes: bool,
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
            counts: random.chance(options.count_percent),
            consumes: random.chance(options.consume_percent),
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
    places
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
