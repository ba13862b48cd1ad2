"""DuckDB and its own Iceberg extension.

Without a catalog it has to be told to look for the newest version by itself.
"""

import tempfile

import duckdb
from duckdb_extensions import import_extension

import reader


def read(folder):
    with tempfile.TemporaryDirectory() as extensions, duckdb.connect() as connection:
        connection.execute(f"SET extension_directory = '{extensions}'")
        for name in ["avro", "httpfs", "iceberg"]:
            import_extension(name, con=connection)
            connection.execute(f"LOAD {name}")
        connection.execute("SET unsafe_enable_version_guessing = true")
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute("SELECT * FROM iceberg_scan(?)", [str(folder)])
        return rows.to_arrow_table()


if __name__ == "__main__":
    reader.main(read)
