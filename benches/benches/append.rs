//! Appending to a log.

mod sides;

use benches::{AppendOptions, Whose, append_sides};
use criterion::{Criterion, criterion_group, criterion_main};

fn append(criterion: &mut Criterion) {
    for (name, whose) in [("own", Whose::Own), ("forwarded", Whose::Forwarded)] {
        for per_transaction in [1, 100, 1000] {
            let rows = if per_transaction == 1 { 100 } else { 5000 };
            let sides = append_sides(AppendOptions { whose, per_transaction, rows });
            let group = format!("append/{name}/x{per_transaction}");
            sides::bench(criterion, &group, rows, &["log", "bare"], sides);
        }
    }
}

criterion_group!(benches, append);
criterion_main!(benches);
