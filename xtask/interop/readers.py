"""The readers, each in a process of its own, and what they see against what replay prints."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pyarrow.ipc

import compare

HERE = Path(__file__).resolve().parent
NAMES = ["pyiceberg", "duckdb", "polars", "daft", "chdb"]
# ClickHouse has no NULL for an array and shows an empty one; a route is never NULL.
EMPTY_FOR_NULL = {"chdb": ["changedFields"]}
SECONDS_MAX = 300


def rows_of(reader, table, work):
    """The rows that one reader sees, read in a process of its own."""
    answer = work / f"{reader}.arrow"
    command = [sys.executable, str(HERE / f"read_{reader}.py"), str(table), str(answer)]
    ran = subprocess.run(command, capture_output=True, timeout=SECONDS_MAX, check=False)
    if ran.returncode != 0:
        last = ran.stderr.decode(errors="replace").strip().splitlines()[-3:]
        raise compare.Difference(f"does not read the table (exit code {ran.returncode}): {' '.join(last)}")
    with pyarrow.ipc.open_file(str(answer)) as file:
        return compare.from_table(file.read_all())


def check(names, table, lines, work):
    """Prints one line per reader; returns how many differ."""
    expected = compare.from_lines(lines)
    first, differing = None, 0
    for reader in names:
        try:
            rows = rows_of(reader, table, work)
            compare.check(expected, rows, EMPTY_FOR_NULL.get(reader, ()))
            first = first or (reader, rows)
            compare.check_stored(first[1], rows, first[0])
            verdict = f"rows {len(rows)}  agree"
        except compare.Difference as difference:
            differing += 1
            verdict = f"DIFFERS  {difference}"
        print(f"{reader} {version(reader)}  {verdict}", flush=True)
    return differing
