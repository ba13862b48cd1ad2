"""The rows that a reader sees in a table against the lines that our own replay prints.

Nothing is rounded or guessed: numbers in documents are compared by their digits (1 is not 1.0, -0.0 is not 0.0),
members by their order, JSON null is not an absent value, and times are whole microseconds. Only a route that is
empty and one that is absent are the same: the event is in its own log.
"""

import json
from dataclasses import dataclass

TEXTS = ["id", "operation", "collection", "documentId", "source", "originEpoch", "correlationId"]
NUMBERS = ["sequence", "schemaVersion"]
DOCUMENTS = ["before", "after", "tag", "transaction", "derivedFrom"]
LISTS = ["changedFields", "route"]
TIMES = ["timestamp"]
CURSOR = {"cursorSequence": "sequence", "cursorTimestamp": "timestamp", "cursorEpoch": "epoch"}
# Columns that no printed event shows; the readers are compared with each other.
STORED_ONLY = ["kind", "delta", "schema"]
COLUMNS = TEXTS + NUMBERS + DOCUMENTS + LISTS + TIMES + list(CURSOR) + STORED_ONLY


class Difference(Exception):
    """The first thing that is not the same."""


@dataclass(frozen=True)
class Number:
    """A JSON number by its digits."""

    digits: str


class Members(tuple):
    """A JSON object: its members in their order."""


def refuse(constant):
    raise ValueError(f"{constant} is not JSON")


def decode(text):
    """A JSON text without loss: digits and member order stay."""
    return json.loads(
        text, parse_int=Number, parse_float=Number, parse_constant=refuse, object_pairs_hook=Members
    )


def from_replay(line):
    """The row that a printed event stands for."""
    event = members(decode(line), "the event")
    cursor = members(event.pop("cursor", Members()), "cursor")
    row = {name: event.pop(name, None) for name in TEXTS + LISTS}
    row |= {name: whole(event.pop(name, None)) for name in NUMBERS}
    row |= {name: microseconds(event.pop(name, None)) for name in TIMES}
    row |= {name: (event.pop(name),) if name in event else None for name in DOCUMENTS}
    row["route"] = row["route"] or []
    row["cursorSequence"] = whole(cursor.pop("sequence", None))
    row["cursorTimestamp"] = microseconds(cursor.pop("timestamp", None))
    row["cursorEpoch"] = cursor.pop("epoch", None)
    if event or cursor:
        raise Difference(f"replay prints members that the table has no column for: {[*event, *cursor]}")
    return row


def from_lines(lines):
    """The rows of a whole replay, in the order of the log."""
    return sorted(map(from_replay, lines), key=lambda row: row["cursorSequence"])


def members(value, what):
    """A JSON object as a dictionary; a repeated member is an error."""
    found = dict(value) if isinstance(value, Members) else None
    if found is None or len(found) != len(value):
        raise Difference(f"replay prints {what} that is not an object with distinct members")
    return found


def whole(number):
    return None if number is None else int(number.digits)


def microseconds(number):
    return None if number is None else int(number.digits) * 1000


def from_table(table):
    """The canonical rows of an Arrow table, in the order of the log."""
    missing = [name for name in COLUMNS if name not in table.column_names]
    unknown = [name for name in table.column_names if name not in COLUMNS]
    if missing or unknown:
        raise Difference(f"columns: missing {missing}, unknown {unknown}")
    columns = {name: cells(name, table.column(name)) for name in COLUMNS}
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return sorted(rows, key=lambda row: row["cursorSequence"])


def cells(name, column):
    import pyarrow

    if name in TIMES or name == "cursorTimestamp":
        if not pyarrow.types.is_timestamp(column.type) or column.type.tz is None:
            raise Difference(f"column {name}: {column.type} is no time with a zone")
        return column.cast(pyarrow.timestamp("us", column.type.tz)).cast(pyarrow.int64()).to_pylist()
    values = [plain(value) for value in column.to_pylist()]
    if name in DOCUMENTS or name == "schema":
        return [None if value is None else (decode(value),) for value in values]
    if name == "route":
        return [value or [] for value in values]
    return [bool(value) for value in values] if name == "delta" else values


def plain(value):
    """Some readers give texts as bytes."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


def check(expected, rows, empty_for_null=()):
    """Raises the first [Difference] between replayed rows and a reader's rows.

    A reader that has no NULL for some columns shows an empty list there; `empty_for_null` names them.
    """
    changes = [row for row in rows if row["kind"] == "change"]
    for number, (ours, theirs) in enumerate(zip(expected, changes)):
        for name in ours:
            empty = ours[name] is None and name in empty_for_null
            compare(f"row {number}, cursor {ours['cursorSequence']}, {name}", [] if empty else ours[name], theirs[name])
    if len(expected) != len(changes):
        raise Difference(f"replay has {len(expected)} events, the table has {len(changes)}")


def check_stored(first, rows, name):
    """Raises the first [Difference] in what only the table holds, between two readers."""
    if len(first) != len(rows):
        raise Difference(f"{name} sees {len(first)} rows, this reader {len(rows)}")
    for ours, theirs in zip(first, rows):
        for column in STORED_ONLY:
            compare(f"cursor {ours['cursorSequence']}, {column} ({name} first)", ours[column], theirs[column])


def compare(where, ours, theirs):
    if type(ours) is not type(theirs) or ours != theirs:
        raise Difference(f"{where}: {shown(ours)} against {shown(theirs)}")


def shown(value):
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
