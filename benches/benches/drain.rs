//! Draining captured rows into the log.

mod sides;

use benches::{Shape, drain_sides};
use criterion::{Criterion, criterion_group, criterion_main};

fn drain(criterion: &mut Criterion) {
    for (name, shape) in [("narrow", Shape::narrow()), ("wide", Shape::wide())] {
        let sides = drain_sides(shape, 5000);
        sides::bench(criterion, &format!("drain/{name}"), 5000, &["drain", "bare"], sides);
    }
}

criterion_group!(benches, drain);
criterion_main!(benches);
