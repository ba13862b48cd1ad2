//! Times each side of a comparison by itself.

use std::time::Duration;

use benches::{Result, Side, timed};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Times sides that do `rows` rows in a round, by wall time.
///
/// # Panics
///
/// When a side cannot be made or fails.
pub(crate) fn bench(
    criterion: &mut Criterion,
    group: &str,
    rows: u32,
    names: &[&str],
    sides: Result<Vec<Box<dyn Side>>>,
) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(rows.into())).sample_size(10);
    let sides = sides.expect("the sides can be made");
    for (mut side, name) in sides.into_iter().zip(names) {
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_custom(|rounds| {
                let mut total = Duration::ZERO;
                for _ in 0..rounds {
                    side.prepare().expect("a round can be prepared");
                    let (cost, done) = timed(|| side.run()).expect("a round succeeds");
                    assert_eq!(done, rows, "a round does all its rows");
                    total += cost.wall;
                }
                total
            });
        });
    }
    group.finish();
}
