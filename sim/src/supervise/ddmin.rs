/// The fewest items that still fail, as far as leaving out one part at a time finds them (Zeller's ddmin). Nothing that
/// is left can be left out alone. `fails` is asked about parts in their order and is trusted about the whole.
pub(super) fn fewest<T: Clone>(mut items: Vec<T>, mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    if items.is_empty() || fails(&[]) {
        return Vec::new();
    }
    let mut parts = 2;
    while items.len() > 1 {
        let length = items.len().div_ceil(parts);
        let starts = (0..items.len()).step_by(length);
        let smaller = starts.map(|start| without(&items, start, length)).find(|rest| fails(rest));
        match smaller {
            Some(rest) => {
                items = rest;
                parts = parts.saturating_sub(1).max(2);
            }
            None if length == 1 => break,
            None => parts = (parts * 2).min(items.len()),
        }
    }
    items
}

fn without<T: Clone>(items: &[T], start: usize, length: usize) -> Vec<T> {
    items.iter().take(start).chain(items.iter().skip(start + length)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_the_failure_needs() {
        let cases: [&[u32]; 6] = [&[], &[0], &[39], &[3, 4], &[0, 20, 39], &[1, 5, 9, 13, 17, 21]];
        for needed in cases {
            let mut asked = 0;
            let left = fewest((0..40).collect(), |items| {
                asked += 1;
                needed.iter().all(|item| items.contains(item))
            });
            assert_eq!(left, needed);
            assert!(asked < 300, "{asked} runs for {needed:?}");
        }
    }

    #[test]
    fn no_item_that_is_left_can_be_left_out_alone() {
        // Fails when there are at least three even numbers: many sets are the fewest.
        let fails = |items: &[u32]| items.iter().filter(|item| *item % 2 == 0).count() >= 3;
        let left = fewest((0..33).collect(), fails);
        assert_eq!(left.len(), 3);
        assert!(fails(&left));
    }

    #[test]
    fn without_time_left_everything_stays() {
        assert_eq!(fewest(vec![1, 2, 3], |_| false), [1, 2, 3]);
    }
}
