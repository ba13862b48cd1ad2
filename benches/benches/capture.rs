//! What capture costs an application.

mod sides;

use benches::{CaptureOptions, Shape, capture_sides};
use cdc_model::Operation;
use criterion::{Criterion, criterion_group, criterion_main};

fn capture(criterion: &mut Criterion) {
    for (name, shape) in [("narrow", Shape::narrow()), ("wide", Shape::wide())] {
        for operation in [Operation::Insert, Operation::Update, Operation::Delete] {
            let sides = capture_sides(CaptureOptions { shape, operation, per_transaction: 100, rows: 2000 });
            let group = format!("capture/{name}/{operation}");
            sides::bench(
                criterion,
                &group,
                2000,
                &["triggers", "floor", "none", "unguarded", "bare-trigger"],
                sides,
            );
        }
    }
}

criterion_group!(benches, capture);
criterion_main!(benches);
