//! One hop between two logs.

mod sides;

use benches::hop_sides;
use criterion::{Criterion, criterion_group, criterion_main};

fn hop(criterion: &mut Criterion) {
    sides::bench(criterion, "hop", 5000, &["hop", "bare"], hop_sides(5000));
}

criterion_group!(benches, hop);
criterion_main!(benches);
