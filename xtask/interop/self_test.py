"""The comparison compared: it must agree where nothing differs and find each planted difference."""

import copy

import compare
import readers
import sample

# Each changes the printed events in one way that a reader's rows must then contradict.
PLANTED = {
    "an event is missing": lambda events: events.pop(),
    "an event is there twice": lambda events: events.append(events[-1]),
    "a number has another sign": lambda events: events[0].update(after=sample.HOSTILE.replace("-0.0", "0.0")),
    "an integer became a double": lambda events: events[4].update(after="0.0"),
    "a text became a number": lambda events: events[0].update(after=sample.HOSTILE.replace('"9223372036854775807"', "9223372036854775807")),
    "members changed places": lambda events: events[3].update(transaction='{"index":0,"id":"t","count":2}'),
    "null became absent": lambda events: events[2].pop("before"),
    "a route is empty": lambda events: events[0].update(route=[]),
    "paths changed places": lambda events: events[1].update(changedFields=["n", "a.b"]),
    "a time moved by a millisecond": lambda events: events[1].update(timestamp=events[1]["timestamp"] + 1),
    "a large number lost its last digit": lambda events: events[0].update(sequence=events[0]["sequence"] - 1),
    "an event has a member without a column": lambda events: events[0].update(extra=1),
}


def planted(empty_for_null):
    """Every planted difference: the ones above and one per printed member."""
    yield from PLANTED.items()
    if not empty_for_null:
        yield "an empty list became absent", lambda events: events[2].pop("changedFields")
    for name in ["id", "operation", "collection", "documentId", "source", "originEpoch", "correlationId"]:
        yield f"{name} differs", lambda events, name=name: events[1].update({name: f"{events[1].get(name)}x"})
    for name in ["schemaVersion", "sequence"]:
        yield f"{name} differs", lambda events, name=name: events[0].update({name: 77})
    for name in ["before", "after", "tag", "transaction", "derivedFrom"]:
        yield f"{name} differs", lambda events, name=name: events[1].update({name: '"x"'})
    for name, value in [("sequence", 99), ("timestamp", 5), ("epoch", "2-0")]:
        yield f"cursor.{name} differs", lambda events, name=name, value=value: events[4]["cursor"].update({name: value})


def run(names, work):
    """Returns the exit code."""
    table = work / "sample"
    sample.write(table)
    if readers.check(names, table, sample.lines(sample.EVENTS), work):
        return 4
    missed, count = [], 0
    for name in names:
        outcome = outcomes(name, table, work)
        missed += [f"{name}: {what}" for what, seen in outcome.items() if not seen]
        count += len(outcome)
    print(f"planted differences: {count}, missed: {', '.join(missed) or 'none'}")
    return 4 if missed else 0


def outcomes(name, table, work):
    """Each planted difference, and whether the comparison finds it in this reader's rows."""
    rows = readers.rows_of(name, table, work)
    empty_for_null = readers.EMPTY_FOR_NULL.get(name, ())
    seen = {what: printed_found(plant, rows, empty_for_null) for what, plant in planted(empty_for_null)}
    return seen | {f"stored {column} differs": stored_found(column, rows) for column in compare.STORED_ONLY}


def printed_found(plant, rows, empty_for_null):
    events = copy.deepcopy(sample.EVENTS)
    plant(events)
    try:
        compare.check(compare.from_lines(sample.lines(events)), rows, empty_for_null)
    except compare.Difference:
        return True
    return False


def stored_found(column, rows):
    changed = copy.deepcopy(rows)
    changed[-1][column] = "other"
    try:
        compare.check_stored(rows, changed, "first")
    except compare.Difference:
        return True
    return False
