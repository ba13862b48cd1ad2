//! Smaller numbers in a plan, over its JSON: options and faults that are added later are made smaller as well.

use serde_json::Value;

/// What makes a run shorter than anything else, first.
const FIRST: [&str; 6] = ["objects", "hosts", "writesMax", "troubleMs", "writers", "depthMax"];

/// What makes no sense as zero.
const POSITIVE: [&str; 10] = [
    "objects",
    "hosts",
    "writesMax",
    "writers",
    "depthMax",
    "fanOutMax",
    "batchSize",
    "batchTimeoutMs",
    "batchBytesMax",
    "archiveEventsMin",
];

/// Up to here a number is also tried less by one.
const SINGLE_STEPS_BELOW: u64 = 10;

/// Where numbers stand in one part of a plan, as JSON pointers, the most telling first.
pub(super) fn places(plan: &Value, part: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(below) = plan.get(part) {
        collect(below, &format!("/{part}"), &mut found);
    }
    found.sort_by_key(|place| FIRST.iter().position(|name| *name == last(place)).unwrap_or(FIRST.len()));
    found
}

fn collect(value: &Value, place: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(place.to_owned()),
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| collect(value, &format!("{place}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| collect(value, &format!("{place}/{at}"), found));
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

fn last(place: &str) -> &str {
    place.rsplit('/').next().unwrap_or(place)
}

/// The plan with less in one place, the least first; none when it is the least already.
pub(super) fn lesser(plan: &Value, place: &str) -> Vec<Value> {
    let Some(number) = plan.pointer(place).and_then(Value::as_i64) else { return Vec::new() };
    let least = i64::from(POSITIVE.contains(&last(place)));
    let mut numbers = vec![least, number / 2, number - number / 4];
    if number.unsigned_abs() <= SINGLE_STEPS_BELOW {
        numbers.push(number - number.signum());
    }
    numbers.retain(|less| (least..number).contains(less) || (number < 0 && (number..=0).contains(less)));
    numbers.retain(|less| *less != number);
    numbers.dedup();
    let mut values: Vec<Value> = numbers.into_iter().map(Value::from).collect();
    if last(place) == "archivePercent" {
        values.insert(0, Value::Null);
    }
    values.into_iter().filter_map(|value| with(plan, place, value)).collect()
}

/// The plan with something else in one place, and without what is then about nothing.
fn with(plan: &Value, place: &str, value: Value) -> Option<Value> {
    let mut plan = plan.clone();
    *plan.pointer_mut(place)? = value;
    let objects = plan.pointer("/options/objects")?.as_u64()?;
    let hosts = plan.pointer("/options/hosts")?.as_u64()?.min(objects);
    *plan.pointer_mut("/options/hosts")? = hosts.into();
    let exists = |fault: &Value, name: &str, count: u64| {
        fault.get(name).and_then(Value::as_u64).is_none_or(|number| number < count)
    };
    plan.get_mut("faults")?.as_array_mut()?.retain(|fault| {
        exists(fault, "object", objects)
            && ["host", "one", "other"].into_iter().all(|name| exists(fault, name, hosts))
            && (fault.get("one").is_none() || fault.get("one") != fault.get("other"))
    });
    Some(plan)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan() -> Value {
        json!({
            "seed": 7,
            "options": {"archivePercent": 10, "hosts": 3, "link": {"batchSize": 9}, "objects": 8},
            "faults": [
                {"atMs": 9, "fault": "clockJump", "host": 2, "byMs": -8},
                {"atMs": 9, "fault": "copy", "object": 7},
                {"atMs": 9, "fault": "partition", "one": 0, "other": 1}
            ]
        })
    }

    #[test]
    fn numbers_are_found_at_any_depth_and_the_telling_ones_come_first() {
        let found = places(&plan(), "options");
        assert_eq!(
            found,
            ["/options/objects", "/options/hosts", "/options/archivePercent", "/options/link/batchSize"]
        );
    }

    #[test]
    fn a_number_goes_down_to_what_makes_sense() {
        let less = |place: &str| -> Vec<Value> {
            let plans = lesser(&plan(), place);
            plans.iter().map(|less| less.pointer(place).cloned().unwrap_or(json!("gone"))).collect()
        };
        assert_eq!(less("/options/link/batchSize"), [json!(1), json!(4), json!(7), json!(8)]);
        assert_eq!(less("/options/archivePercent"), [json!(null), json!(0), json!(5), json!(8), json!(9)]);
        assert_eq!(less("/faults/0/byMs"), [json!(0), json!(-4), json!(-6), json!(-7)]);
        assert!(less("/options/nothing").is_empty());
    }

    #[test]
    fn a_fault_of_what_is_gone_goes_too() {
        let smallest = lesser(&plan(), "/options/objects").remove(0);
        assert_eq!(smallest.pointer("/options/hosts"), Some(&json!(1)));
        assert_eq!(smallest.get("faults"), Some(&json!([])));
        let two = with(&plan(), "/options/hosts", json!(2)).expect("a plan");
        let faults = two.get("faults").and_then(Value::as_array).expect("faults");
        let kinds: Vec<_> = faults.iter().filter_map(|fault| fault.get("fault")?.as_str()).collect();
        assert_eq!(kinds, ["copy", "partition"]);
    }
}
