"""A small table that PyIceberg writes, with the columns of ours, and the lines a replay of it would print."""

import json
import shutil
from datetime import datetime, timedelta, timezone

import pyarrow
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import BooleanType, ListType, LongType, NestedField, StringType, TimestamptzType

import compare

EPOCH = "1-00c0ffee00c0ffee"
HOSTILE = '{"n":null,"i":-0,"r":-0.0,"e":1e308,"big":{"$int":"9223372036854775807"},"t":"\\u0000\\"\\n\U0001f600"}'


def event(sequence, operation, **members):
    """One printed event; documents are given as JSON texts, which stay as they are."""
    milliseconds = 1_705_276_800_000 + sequence * 43_200_000
    return {
        "id": f"018d0a7e-f200-8001-8000-{sequence:012x}",
        "operation": operation,
        "collection": "notes",
        "documentId": f'["\u00e9",{sequence}]',
        "timestamp": milliseconds + 7,
        "sequence": 9_007_199_254_740_993 + sequence,
        "source": "https://acme.test/app",
        "originEpoch": EPOCH,
        "route": ["https://acme.test"],
        "cursor": {"sequence": sequence, "timestamp": milliseconds + 9, "epoch": EPOCH},
    } | members


EVENTS = [
    event(1, "INSERT", after=HOSTILE, tag='"snapshot"', schemaVersion=1),
    event(2, "UPDATE", before=HOSTILE, after='{"n":1}', changedFields=["a.b", "n"], correlationId="c"),
    event(3, "UPDATE", before="null", after="null", changedFields=[], route=[]),
    event(4, "DELETE", before="[]", transaction='{"id":"t","index":0,"count":2}'),
    event(5, "INSERT", after="0", derivedFrom='{"source":"https://a.test","epoch":"1-0","sequence":3}'),
]


def lines(events):
    """What a replay prints; documents are put in as they are."""
    return [printed(one) for one in events]


def printed(one):
    texts = [
        f"{json.dumps(name)}:{value if name in compare.DOCUMENTS else json.dumps(value)}" for name, value in one.items()
    ]
    return "{" + ",".join(texts) + "}"


def rows():
    """The table's rows: the events and a change of schema."""
    schema = dict.fromkeys(compare.COLUMNS) | {
        "id": "018d0a7e-f200-8001-8000-00000000abcd",
        "kind": "schema",
        "collection": "notes",
        "delta": False,
        "schema": '{"collection":"notes","version":1,"columns":[]}',
        "route": [],
        "originEpoch": EPOCH,
        "source": "https://acme.test/app",
        "cursorEpoch": EPOCH,
    }
    schema |= {"sequence": 9, "cursorSequence": 6, "timestamp": moment(1_705_276_800_000)}
    schema |= {"cursorTimestamp": moment(1_705_276_800_000)}
    return [row(one) for one in EVENTS] + [schema]


def row(one):
    cells = dict.fromkeys(compare.COLUMNS) | {"kind": "change", "delta": one["operation"] == "UPDATE"}
    cells |= {name: value for name, value in one.items() if name != "cursor"}
    cells |= {column: one["cursor"][member] for column, member in compare.CURSOR.items()}
    return cells | {name: moment(cells[name]) for name in ["timestamp", "cursorTimestamp"]}


def moment(milliseconds):
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)


def kind_of(name):
    special = {
        "timestamp": TimestamptzType(),
        "cursorTimestamp": TimestamptzType(),
        "sequence": LongType(),
        "cursorSequence": LongType(),
        "schemaVersion": LongType(),
        "delta": BooleanType(),
    }
    return special.get(name, StringType())


def write(folder):
    """Writes the table in two commits and gives its folder the layout of ours."""
    fields = []
    for number, name in enumerate(compare.COLUMNS, start=1):
        kind = ListType(100 + number, StringType(), element_required=False) if name in compare.LISTS else kind_of(name)
        fields.append(NestedField(number, name, kind, required=False))
    schema = Schema(*fields)
    day = PartitionField(schema.find_field("timestamp").field_id, 1000, DayTransform(), "timestamp_day")
    catalog = SqlCatalog("sample", uri="sqlite:///:memory:", warehouse=f"file://{folder.parent}")
    catalog.create_namespace("sample")
    table = catalog.create_table("sample.notes", schema, f"file://{folder}", PartitionSpec(day))
    everything = rows()
    for part in [everything[:2], everything[2:]]:
        table.append(pyarrow.Table.from_pylist(part, schema=table.schema().as_arrow()))
    newest = table.metadata_location.removeprefix("file://")
    shutil.copyfile(newest, folder / "metadata" / "v3.metadata.json")
    (folder / "metadata" / "version-hint.text").write_text("3")
