//! Makes a failing plan smaller, in fresh processes, while it breaks the same promise.

use std::time::{Duration, Instant};

use serde_json::Value;
use sim::FaultPlan;

use super::child::{Children, Ran, Verdict};
use super::pool::{self, News};
use super::{ddmin, smaller};
use crate::line::{Breach, Measured};
use crate::runner::Runner;

/// Seeds that a smaller plan is tried with: any change draws everything anew, so one seed says little.
const SEEDS_MAX: u64 = 4;

/// A plan that fails, and how.
#[derive(Clone, Debug)]
pub(super) struct Failing {
    pub(super) plan: FaultPlan,
    pub(super) breach: Breach,
    pub(super) measured: Measured,
}

/// Looks for a smaller one.
#[derive(Debug)]
pub(super) struct Shrinker<'c> {
    children: &'c Children,
    runner: Runner,
    jobs: usize,
    until: Instant,
    best: Failing,
    runs: u64,
    told: String,
}

impl<'c> Shrinker<'c> {
    pub(super) fn new(
        children: &'c Children,
        runner: Runner,
        jobs: usize,
        time: Duration,
        first: Failing,
    ) -> Self {
        Self {
            children,
            runner,
            jobs,
            until: Instant::now() + time,
            best: first,
            runs: 0,
            told: String::new(),
        }
    }

    /// The smallest plan that was found in time, and the runs that it took.
    pub(super) fn shrink(mut self) -> (Failing, u64) {
        loop {
            let before = self.best.plan.clone();
            self.drop_faults();
            self.lessen("options");
            self.drop_faults();
            self.lessen("faults");
            let same = FaultPlan { seed: before.seed, ..self.best.plan.clone() } == before;
            if same || self.is_over() {
                return (self.best, self.runs);
            }
        }
    }

    fn is_over(&self) -> bool {
        self.children.is_stopped() || Instant::now() >= self.until
    }

    fn drop_faults(&mut self) {
        let plan = self.best.plan.clone();
        let faults = plan.faults.clone();
        ddmin::fewest(faults, |faults| self.fails(&FaultPlan { faults: faults.to_vec(), ..plan.clone() }));
    }

    /// Makes numbers in one part of the plan smaller, each as far as it goes.
    fn lessen(&mut self, part: &str) {
        for place in smaller::places(&value(&self.best.plan), part) {
            while self.try_less(&place) {}
        }
    }

    fn try_less(&mut self, place: &str) -> bool {
        let whole = value(&self.best.plan);
        let plans =
            smaller::lesser(&whole, place).into_iter().filter_map(|less| serde_json::from_value(less).ok());
        plans.into_iter().any(|plan: FaultPlan| plan != self.best.plan && self.fails(&plan))
    }

    /// Whether a plan fails in the same way, with its own seed or one of the next; if so, it is the best one.
    fn fails(&mut self, plan: &FaultPlan) -> bool {
        let mut offset = 0;
        while offset < SEEDS_MAX && !self.is_over() {
            let together = u64::try_from(self.jobs).unwrap_or(1).min(SEEDS_MAX - offset);
            let seeds = (offset..offset + together).map(|more| plan.seed.wrapping_add(more));
            offset += together;
            self.runs += together;
            let found = self.failing(seeds.map(|seed| FaultPlan { seed, ..plan.clone() }).collect());
            if let Some(found) = found {
                self.best = found;
                self.tell();
                return true;
            }
        }
        false
    }

    /// The first of some plans that fails in the same way.
    fn failing(&self, plans: Vec<FaultPlan>) -> Option<Failing> {
        let mut found: Vec<(usize, Failing)> = Vec::new();
        let run = |(order, plan): (usize, FaultPlan)| {
            let ran = self.children.run(&plan, self.runner);
            (order, plan, ran)
        };
        pool::run(self.jobs, plans.into_iter().enumerate(), run, |news| {
            if let News::Done((order, plan, Ran { verdict: Verdict::Broken(breach), measured, .. })) = news
                && breach.is_like(&self.best.breach)
            {
                found.push((order, Failing { plan, breach, measured }));
            }
        });
        found.into_iter().min_by_key(|(order, _)| *order).map(|(_, failing)| failing)
    }

    /// Says what became smaller, if it is something that a person looks at.
    fn tell(&mut self) {
        let FaultPlan { options, faults, .. } = &self.best.plan;
        let (faults, objects, hosts, writes) =
            (faults.len(), options.objects, options.hosts, options.writes_max);
        let size = format!("{faults} faults, {objects} objects, {hosts} processes, {writes} writes at most");
        if size != self.told {
            eprintln!("shrink: {size}, after {} runs", self.runs);
            self.told = size;
        }
    }
}

fn value(plan: &FaultPlan) -> Value {
    serde_json::to_value(plan).expect("a plan has a form in JSON")
}

/// The failure in a few lines: the world, what was written, what went wrong on purpose, what the checker saw.
pub(super) fn story(failing: &Failing) -> String {
    let Failing { plan, breach, measured } = failing;
    let options = &plan.options;
    let mut lines = vec![
        format!("promise  {}", breach.promise),
        format!("world    {} objects in {} processes, seed {}", options.objects, options.hosts, plan.seed),
        format!("written  {} transactions with {} events", measured.transactions, measured.events),
    ];
    if let Some(mutant) = &plan.mutant {
        lines.push(format!("mutant   {mutant}"));
    }
    let faults = value(plan).get("faults").and_then(Value::as_array).cloned().unwrap_or_default();
    lines.extend(faults.iter().map(|fault| format!("fault    {}", described(fault))));
    lines.push(format!("saw      {}", breach.saw));
    lines.push("steps".to_owned());
    lines.extend(breach.story.lines().map(|line| format!("  {line}")));
    lines.join("\n")
}

/// A fault as `at 12 ms: crash, host 1, operation 0`.
fn described(fault: &Value) -> String {
    let field = |name: &str| fault.get(name).map(Value::to_string).unwrap_or_default();
    let fields = fault.as_object().into_iter().flatten();
    let rest = fields.filter(|(name, _)| !["atMs", "fault"].contains(&name.as_str()));
    let rest: Vec<String> = rest.map(|(name, value)| format!(", {name} {value}")).collect();
    format!("at {} ms: {}{}", field("atMs"), field("fault").trim_matches('"'), rest.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_names_what_was_written_what_went_wrong_and_what_was_seen() {
        let mut plan = FaultPlan::draw(11, Some(3));
        plan.faults.truncate(0);
        let crash = r#"{"atMs":12,"fault":"crash","host":1,"operation":0,"power":true,"downMs":5}"#;
        plan.faults.push(serde_json::from_str(crash).expect("a fault"));
        let breach = Breach {
            promise: "what is written arrives".to_owned(),
            saw: "object 0 holds 1 of 2 rows".to_owned(),
            story: "1 ms  host 1 is up".to_owned(),
            place: None,
        };
        let measured = Measured { transactions: 2, events: 3, ..Measured::default() };
        let story = story(&Failing { plan, breach, measured });
        insta::assert_snapshot!(story);
    }
}
