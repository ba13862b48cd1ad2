//! Appending to an archive.

mod sides;

use benches::archive_sides;
use criterion::{Criterion, criterion_group, criterion_main};

fn archive_write(criterion: &mut Criterion) {
    let names = ["archive", "bare", "bare, columns ready"];
    sides::bench(criterion, "archive write", 20_000, &names, archive_sides(20_000));
}

criterion_group!(benches, archive_write);
criterion_main!(benches);
