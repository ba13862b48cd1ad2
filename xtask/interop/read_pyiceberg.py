"""PyIceberg, from the newest metadata file and without a catalog."""

from pyiceberg.table import StaticTable

import reader


def read(folder):
    return StaticTable.from_metadata(str(reader.newest_metadata(folder))).scan().to_arrow()


if __name__ == "__main__":
    reader.main(read)
