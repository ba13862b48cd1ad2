"""A project that is made through the command line only, over a database that another program writes."""

import math
import sqlite3
import subprocess

ROOT = "https://acme.test"
APP = "https://acme.test/app"
# What is written after the database is attached; fewer events than that prove nothing.
CHANGES_MIN = 40

TABLES = """
CREATE TABLE every_value(id INTEGER PRIMARY KEY, value, note TEXT);
CREATE TABLE by_text(name TEXT PRIMARY KEY, amount REAL, data BLOB);
CREATE TABLE by_pair(region TEXT, number INTEGER, value, PRIMARY KEY(region, number)) WITHOUT ROWID;
CREATE TABLE by_mixed(a, b BLOB, c REAL, PRIMARY KEY(a, b, c));
CREATE TABLE keyless(value);
"""

VALUES = [
    None, 0, 1, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53), 2**63 - 1, -(2**63),
    0.0, -0.0, 1.0, 0.1, 1 / 3, 1e308, -1e308, 5e-324, 1e21, 123456789012345.67, math.inf, -math.inf, math.nan,
    "", "0", "null", "[1]", "it's \"quoted\"", "line\nline\r\n\ttab", "\U0001f600 é 漢", "a\u2028b", "nul\0inside", "\x7f\x01",
    b"", b"\x00\xff", bytes(range(256)),
]  # fmt: skip


def write_before(path):
    """What is there before anyone captures."""
    with sqlite3.connect(path) as database:
        database.executescript(TABLES)
        database.execute("INSERT INTO every_value VALUES (-1, 'here before', NULL)")
        database.execute("INSERT INTO by_text VALUES ('old', 1.5, x'00')")
    database.close()


def write_values(path):
    """Every kind of value, each in a row of its own."""
    database = sqlite3.connect(path, timeout=10)
    with database:
        rows = enumerate(VALUES, start=1)
        database.executemany("INSERT INTO every_value VALUES (?, ?, 'n')", rows)
        for bytes_ in ["ff", "c3", "61ff62", "eda080"]:
            database.execute(f"INSERT INTO every_value VALUES (NULL, CAST(x'{bytes_}' AS TEXT), NULL)")
        database.execute("INSERT INTO every_value VALUES (9007199254740993, 'large key', NULL)")
    database.close()


def write_changes(path):
    """Updates, deletes, keys of every shape, a rollback, and an update that changes nothing."""
    statements = [
        "INSERT INTO by_text VALUES ('[starts like an array', -0.0, x'ff')",
        "INSERT INTO by_text VALUES ('', 1e308, NULL), ('\u00e9\U0001f600', 2, zeroblob(3))",
        "UPDATE by_text SET amount = 2.5, data = x'0102' WHERE name = 'old'",
        "UPDATE by_text SET name = 'renamed' WHERE name = ''",
        "UPDATE by_text SET amount = amount",
        "INSERT INTO by_pair VALUES ('eu', 1, 'a'), ('eu', 2, NULL), ('us', 9007199254740993, 1.0)",
        "UPDATE by_pair SET value = 1 WHERE region = 'us'",
        "INSERT OR REPLACE INTO by_pair VALUES ('eu', 1, 'replaced')",
        "DELETE FROM by_pair WHERE number = 2",
        "INSERT INTO by_mixed VALUES (1, x'00', 1.0), ('1', x'', -0.0), (NULL, x'01', 3)",
        "DELETE FROM by_mixed WHERE a = 1",
        "INSERT INTO keyless VALUES ('x'), (NULL)",
        "DELETE FROM keyless WHERE value = 'x'",
        "UPDATE every_value SET value = 1.0 WHERE id = 3",
        "UPDATE every_value SET note = NULL WHERE id BETWEEN 10 AND 14",
        "DELETE FROM every_value WHERE id IN (-1, 20, 36)",
    ]
    database = sqlite3.connect(path, timeout=10, isolation_level=None)
    for statement in statements:
        database.execute(statement)
    database.execute("BEGIN")
    database.execute("DELETE FROM every_value")
    database.execute("ROLLBACK")
    database.close()


def make(cdc, folder):
    """Makes the project; returns the table's folder and what replay prints."""

    def run(*arguments):
        ran = subprocess.run([cdc, *arguments], cwd=folder, capture_output=True, check=False)
        if ran.returncode != 0:
            command = " ".join(["cdc", *arguments])
            raise SystemExit(f"`{command}` failed with exit code {ran.returncode}\n{ran.stderr.decode(errors='replace')}")
        return ran.stdout.decode()

    folder.mkdir(parents=True)
    app = folder / "app.db"
    write_before(app)
    run("init")
    run("create", ROOT)
    run("attach", "app.db", "--id", APP, "--context", ROOT)
    run("run", "--once")
    write_values(app)
    run("run", "--once")
    write_changes(app)
    run("run", "--once")
    # Not splitlines(): that also splits at characters which JSON strings may hold.
    lines = run("replay", ROOT, "-o", "ndjson").split("\n")
    return table_of(folder), [line for line in lines if line]


def table_of(folder):
    tables = sorted(path for path in (folder / "warehouse" / "tables").glob("*") if path.is_dir())
    if len(tables) != 1:
        raise SystemExit(f"one table of the root was expected, there are: {[path.name for path in tables]}")
    return tables[0]
