"""chDB, the embedded ClickHouse.

It reads only below its working directory and wants absolute paths. Its arrays have no NULL.
"""

import os

import chdb

import reader


def read(folder):
    os.chdir(folder)
    return chdb.query(f"SELECT * FROM icebergLocal('{folder}')", "ArrowTable")


if __name__ == "__main__":
    reader.main(read)
