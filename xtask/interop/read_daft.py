"""Daft with its own Parquet reader; PyIceberg only plans for it."""

import os

os.environ["DO_NOT_TRACK"] = "1"
os.environ["DAFT_PROGRESS_BAR"] = "0"

import daft
from pyiceberg.table import StaticTable

import reader


def read(folder):
    table = StaticTable.from_metadata(str(reader.newest_metadata(folder)))
    return daft.read_iceberg(table).to_arrow()


if __name__ == "__main__":
    reader.main(read)
