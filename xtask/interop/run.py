"""Compares what each reader sees in a table of ours with what our own replay prints.

Exits 4 when a reader sees anything else, 1 when the comparison could not be made.
"""

import argparse
import sys
from pathlib import Path

import project
import readers


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder for everything that is made")
    parser.add_argument("--cdc", type=Path, help="the binary")
    parser.add_argument("--only", help="readers, separated by commas")
    parser.add_argument("--self-test", action="store_true", help="check the comparison over a table of PyIceberg's")
    given = parser.parse_args()
    given.readers = given.only.split(",") if given.only else readers.NAMES
    unknown = [reader for reader in given.readers if reader not in readers.NAMES]
    if unknown or not (given.cdc or given.self_test):
        parser.error(f"no such reader: {unknown}" if unknown else "--cdc or --self-test is needed")
    return given


def main():
    given = arguments()
    work = given.work.resolve()
    if given.self_test:
        import self_test

        return self_test.run(given.readers, work)
    table, lines = project.make(given.cdc.resolve(), work / "project")
    if len(lines) < project.CHANGES_MIN:
        print(f"replay prints {len(lines)} events; at least {project.CHANGES_MIN} changes were written")
        return 4
    return 4 if readers.check(given.readers, table, lines, work) else 0


if __name__ == "__main__":
    sys.exit(main())
