"""Polars with its own Parquet reader; PyIceberg only plans for it."""

import warnings

import polars

import reader


def read(folder):
    with warnings.catch_warnings(action="ignore"):
        rows = polars.scan_iceberg(str(reader.newest_metadata(folder)), reader_override="native")
    return rows.collect().to_arrow()


if __name__ == "__main__":
    reader.main(read)
