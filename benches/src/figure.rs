//! One measured number beside its baseline, as every report prints it.

use std::fmt;

use serde::Serialize;

use crate::{Compared, Metric};

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What it is called; `report` tells how each is made.
    pub name: String,
    /// What was found.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The same of the baseline.
    pub baseline: Option<f64>,
    /// Value by baseline.
    pub ratio: Option<f64>,
    /// The most or the least that is allowed.
    pub bound: Option<f64>,
    /// Whether the bound holds; true when there is none.
    pub ok: bool,
}

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Less is better; the bound is the most.
    Cost,
    /// More is better; the bound is the least.
    Rate,
}

impl Figure {
    /// What stands above figures when they are printed.
    pub const HEADER: &str =
        "name                                    value unit            baseline  ratio bound ok|short";

    /// A figure of `side` against `base`, judged when there is a bound.
    #[must_use]
    pub fn of(
        name: impl Into<String>,
        compared: &Compared,
        (side, base): (usize, usize),
        (kind, metric): (Kind, Metric),
        bound: Option<f64>,
    ) -> Self {
        let (ours, base_cost) = (compared.cost(side, metric), compared.cost(base, metric));
        let (value, baseline, ratio) = match kind {
            Kind::Cost => (ours, base_cost, compared.ratio(side, base, metric)),
            Kind::Rate => (1e6 / ours, 1e6 / base_cost, compared.ratio(base, side, metric)),
        };
        let unit = match (kind, metric) {
            (Kind::Cost, Metric::Cpu) => "cpu-µs/row",
            (Kind::Cost, Metric::Wall) => "µs/row",
            (Kind::Rate, Metric::Cpu) => "rows/cpu-s",
            (Kind::Rate, Metric::Wall) => "rows/s",
        };
        let holds = |bound| if kind == Kind::Cost { ratio <= bound } else { ratio >= bound };
        let ok = bound.is_none_or(holds);
        Self { name: name.into(), value, unit, baseline: Some(baseline), ratio: Some(ratio), bound, ok }
    }

    /// What `side` costs more than `base`, in processor time, at most `bound`.
    #[must_use]
    pub fn difference(
        name: impl Into<String>,
        compared: &Compared,
        (side, base): (usize, usize),
        bound: f64,
    ) -> Self {
        Self {
            name: name.into(),
            value: compared.difference(side, base, Metric::Cpu),
            unit: "cpu-µs/row",
            baseline: Some(compared.cost(base, Metric::Cpu)),
            ratio: None,
            bound: Some(bound),
            ok: compared.difference(side, base, Metric::Cpu) <= bound,
        }
    }

    /// A figure that is only published.
    #[must_use]
    pub fn alone(name: &str, value: f64, unit: &'static str) -> Self {
        Self { name: name.to_owned(), value, unit, baseline: None, ratio: None, bound: None, ok: true }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, value, unit, baseline, ratio, bound, ok } = self;
        let number = |value: f64| if value >= 1000.0 { format!("{value:.0}") } else { format!("{value:.3}") };
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let (baseline, ratio) = (baseline.map(number), ratio.map(|ratio| format!("{ratio:.2}")));
        let (baseline, ratio, bound) =
            (or_dash(baseline), or_dash(ratio), or_dash(bound.map(|b| b.to_string())));
        let verdict = if *ok { "ok" } else { "short" };
        let value = number(*value);
        write!(f, "{name:<34} {value:>10} {unit:<13} {baseline:>10} {ratio:>6} {bound:>5} {verdict}")
    }
}
