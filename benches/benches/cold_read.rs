//! Reading an archive.

mod sides;

use benches::cold_sides;
use criterion::{Criterion, criterion_group, criterion_main};

fn cold_read(criterion: &mut Criterion) {
    sides::bench(criterion, "cold read", 20_000, &["archive", "log"], cold_sides(20_000));
}

criterion_group!(benches, cold_read);
criterion_main!(benches);
