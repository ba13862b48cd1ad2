"""What every reader script does around its one function: read a table's folder, hand the rows over as Arrow.

Each reader is a process of its own, so that one that crashes takes no other with it.
"""

import sys
from pathlib import Path

import pyarrow
import pyarrow.ipc


def newest_metadata(table):
    """The metadata file with the highest version, `vN.metadata.json`."""
    files = Path(table, "metadata").glob("v*.metadata.json")
    return max(files, key=lambda file: int(file.name[1:].split(".")[0]))


def main(read):
    """`read(folder)` gives a `pyarrow.Table`; the command line names the folder and the file to write."""
    folder, answer = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    rows = read(folder)
    with pyarrow.ipc.new_file(str(answer), rows.schema) as file:
        file.write_table(rows)
