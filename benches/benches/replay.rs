//! Replaying over both tiers.

mod sides;

use benches::replay_sides;
use criterion::{Criterion, criterion_group, criterion_main};

fn replay(criterion: &mut Criterion) {
    sides::bench(criterion, "replay", 20_000, &["both tiers", "log"], replay_sides(20_000));
}

criterion_group!(benches, replay);
criterion_main!(benches);
