//! Pictures in the page, drawn by hand: no script, nothing loaded.

use std::fmt::Write as _;

use super::{Curve, grouped, time};
use crate::supervise::tally::ratio;

const WIDTH: u64 = 720;
const HEIGHT: u64 = 220;
const MARGIN: u64 = 46;

const BAR_HEIGHT: u64 = 20;
const LABEL_WIDTH: u64 = 230;
const VALUE_WIDTH: u64 = 110;

/// Runs over time.
pub(super) fn curve(curve: &Curve) -> String {
    let (Some((last_at, most, failures)), true) = (curve.points.last(), curve.points.len() > 1) else {
        return "<p class=\"note\">Too few runs for a curve.</p>".to_owned();
    };
    let place = |at: u64, runs: u64| {
        let x = MARGIN + (WIDTH - 2 * MARGIN).saturating_mul(at) / (*last_at).max(1);
        let y = HEIGHT - MARGIN / 2 - (HEIGHT - MARGIN).saturating_mul(runs) / (*most).max(1);
        format!("{x},{y}")
    };
    let runs: Vec<String> = curve.points.iter().map(|(at, runs, _)| place(*at, *runs)).collect();
    let origin = place(0, 0);
    let mut text = frame(HEIGHT);
    let (bottom, right) = (HEIGHT - MARGIN / 2, WIDTH - MARGIN);
    put(&mut text, &format!("<path class=\"axis\" d=\"M{MARGIN} {} V{bottom} H{right}\"/>", MARGIN / 2));
    put(&mut text, &format!("<polyline class=\"line\" points=\"{origin} {}\"/>", runs.join(" ")));
    if *failures > 0 {
        let failed: Vec<String> = curve.points.iter().map(|(at, _, failed)| place(*at, *failed)).collect();
        put(&mut text, &format!("<polyline class=\"bad\" points=\"{origin} {}\"/>", failed.join(" ")));
    }
    put(&mut text, &format!("<text x=\"{MARGIN}\" y=\"14\">{} runs</text>", grouped(*most)));
    let end = time(*last_at);
    put(&mut text, &format!("<text class=\"end\" x=\"{right}\" y=\"{}\">{end}</text>", HEIGHT - 6));
    text.push_str("</svg>");
    text
}

/// Bars of a magnitude each: one that is a thousand times as long would hide the others.
pub(super) fn bars<'a>(rows: impl IntoIterator<Item = (&'a str, u64, bool)>) -> String {
    let rows: Vec<_> = rows.into_iter().collect();
    let most = rows.iter().map(|(_, count, _)| magnitude(*count)).max().unwrap_or_default().max(1);
    let room = WIDTH - LABEL_WIDTH - VALUE_WIDTH;
    let height = BAR_HEIGHT * u64::try_from(rows.len()).unwrap_or_default().max(1);
    let mut text = frame(height);
    for (row, (label, count, bad)) in (0..).zip(&rows) {
        let top: u64 = BAR_HEIGHT * row;
        let width = room * magnitude(*count) / most;
        let class = if *bad { "bar bad" } else { "bar" };
        let base = top + 14;
        put(
            &mut text,
            &format!("<text class=\"end\" x=\"{}\" y=\"{base}\">{}</text>", LABEL_WIDTH - 8, escaped(label)),
        );
        let bar = format!("x=\"{LABEL_WIDTH}\" y=\"{}\" width=\"{width}\" height=\"14\"", top + 3);
        put(&mut text, &format!("<rect class=\"{class}\" {bar}/>"));
        let value = LABEL_WIDTH + width + 6;
        put(
            &mut text,
            &format!("<text class=\"value\" x=\"{value}\" y=\"{base}\">{}</text>", grouped(*count)),
        );
    }
    text.push_str("</svg>");
    text
}

/// A hundred for each power of ten, with what lies between.
fn magnitude(count: u64) -> u64 {
    let digits = u64::from(count.checked_ilog10().unwrap_or_default());
    let first = 10_u64.saturating_pow(u32::try_from(digits).unwrap_or_default());
    let within = ratio(count, first).log10().max(0.0) * 100.0;
    let within = (0..100).rev().find(|step: &u32| f64::from(*step) <= within).unwrap_or_default();
    if count == 0 { 0 } else { 20 + digits * 100 + u64::from(within) }
}

fn frame(height: u64) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n")
}

fn put(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a String takes every write");
}

/// Text as HTML wants it.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magnitude_grows_with_the_count_and_by_a_hundred_with_each_power_of_ten() {
        let counts = [0, 1, 2, 5, 9, 10, 11, 99, 100, 12_345, u64::MAX];
        assert!(counts.map(magnitude).is_sorted(), "{:?}", counts.map(magnitude));
        assert_eq!([0, 1, 10, 1_000].map(magnitude), [0, 20, 120, 320]);
    }
}
