"""Kills `cdc run` at random while Python and the sqlite3 shell write; then puts an older copy of the database back.

After each part: `cdc verify --rows` is clean, the fold of the root equals a dump of the live tables value by value
(rendered here, by rules written from the format's documentation), and DuckDB counts the same events, each once.
"""

import argparse
import base64
import collections
import json
import math
import os
import pathlib
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "interop"))

ROOT, APP = "https://acme.test", "https://acme.test/app"

TABLES = """
CREATE TABLE customers(id INTEGER PRIMARY KEY, name TEXT, email TEXT UNIQUE, tier TEXT, spent REAL);
CREATE TABLE settings(key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE visits(customer INTEGER, day TEXT, count INTEGER, PRIMARY KEY(customer, day));
CREATE TRIGGER touched AFTER UPDATE OF tier ON customers BEGIN
  UPDATE settings SET value = coalesce(value, 0) + 1 WHERE key = 'touched'; END;
INSERT INTO settings VALUES ('touched', 0);
INSERT INTO customers SELECT value, 'early ' || value, value || '@x', 'free', 0.0 FROM generate_series(1, 50);
"""

KEYS = {"customers": ["id"], "settings": ["key"], "visits": ["customer", "day"]}
VALUES = [None, 1, -7, 2**53 + 1, -(2**63), 0.5, -0.0, 1e300, math.inf, "", "text", "[x]", "\U0001f600 \x00 '", b"", b"\x00\xff"]


def say(text):
    print(text, file=sys.stderr, flush=True)


class Cdc:
    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder

    def command(self, *args):
        return [str(self.binary), "--dir", str(self.folder), *args]

    def run(self, *args):
        done = subprocess.run(self.command(*args), capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"cdc {' '.join(args)} exited {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def lines(self, *args):
        return [json.loads(line) for line in self.run(*args, "-o", "ndjson").split("\n") if line]


class Writers:
    """A Python program and a shell, each with a connection of its own, until stopped."""

    def __init__(self, database, seed):
        self.database, self.stopping = database, threading.Event()
        self.done = collections.Counter()
        self.failed = []
        works = [(self.python, seed), (self.python, seed + 1), (self.shell, seed + 2)]
        self.threads = [threading.Thread(target=self.guarded, args=work) for work in works]
        for thread in self.threads:
            thread.start()

    def guarded(self, work, seed):
        try:
            work(random.Random(seed))
        except Exception as error:  # reported and fatal at the end
            self.failed.append(error)

    def python(self, rng):
        while not self.stopping.is_set():
            connection = sqlite3.connect(self.database, timeout=30, isolation_level=None)
            for _ in range(rng.randrange(1, 40)):
                connection.execute("BEGIN IMMEDIATE")
                for _ in range(rng.randrange(1, 6)):
                    self.change(connection, rng)
                connection.execute("ROLLBACK" if rng.random() < 0.1 else "COMMIT")
                self.done["python"] += 1
                if self.stopping.wait(rng.random() * 0.02):
                    break
            connection.close()

    def change(self, connection, rng):
        number, tier = rng.randrange(1, 200), rng.choice(["free", "pro", None, "é"])
        kind = rng.randrange(8)
        if kind == 0:
            row = (number, f"c{number}", f"{rng.randrange(200)}@x", tier, rng.choice(VALUES[5:9]))
            connection.execute("INSERT OR REPLACE INTO customers VALUES (?, ?, ?, ?, ?)", row)
        elif kind == 1:
            connection.execute("INSERT OR IGNORE INTO customers(id, email) VALUES (?, ?)", (number, f"{number}@x"))
        elif kind == 2:
            connection.execute("UPDATE customers SET tier = ?, spent = spent + 1.5 WHERE id = ?", (tier, number))
        elif kind == 3:
            connection.execute("DELETE FROM customers WHERE id BETWEEN ? AND ?", (number, number + 2))
        elif kind == 4:
            key, value = f"k{rng.randrange(40)}", rng.choice(VALUES)
            connection.execute("INSERT INTO settings VALUES (?, ?) ON CONFLICT(key) DO UPDATE SET value = excluded.value", (key, value))
        elif kind == 5:
            connection.execute("UPDATE OR REPLACE settings SET key = ? WHERE key = ?", (f"k{rng.randrange(40)}", f"k{rng.randrange(40)}"))
        elif kind == 6:
            day = f"2026-01-{rng.randrange(1, 28):02}"
            connection.execute("INSERT INTO visits VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET count = count + 1", (number, day))
        else:
            connection.execute("UPDATE customers SET id = id + 1000 WHERE id = ? AND NOT EXISTS(SELECT 1 FROM customers WHERE id = ?)", (number, number + 1000))

    def shell(self, rng):
        while not self.stopping.is_set():
            number = rng.randrange(1, 200)
            sql = f"UPDATE customers SET name = 'by shell {rng.random()}' WHERE id = {number}; INSERT OR REPLACE INTO settings VALUES ('shell', {number});"
            done = subprocess.run(["sqlite3", "-cmd", ".timeout 30000", str(self.database), sql], capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"sqlite3 shell: {done.stderr}")
            self.done["shell"] += 1
            self.stopping.wait(0.02)

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        if self.failed:
            raise SystemExit(f"a writer failed: {self.failed[0]!r}")
        return dict(self.done)


def rendered(value):
    """A SQLite value as the event format documents it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, int):
        return value if abs(value) < 2**53 else {"$int": str(value)}
    if math.isinf(value):
        return {"$real": "Infinity" if value > 0 else "-Infinity"}
    return value


def same(ours, theirs):
    """Equal in value and in type: 1 is not 1.0, 0.0 is not -0.0."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(same(ours[key], theirs[key]) for key in ours)
    if type(ours) is not type(theirs):
        return False
    return repr(ours) == repr(theirs)


def live_rows(database):
    rows = {}
    connection = sqlite3.connect(database, timeout=30)
    for table, keys in KEYS.items():
        cursor = connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        for values in cursor:
            row = dict(zip(names, map(rendered, values)))
            key = [row[name] for name in keys]
            text = isinstance(key[0], str) and not key[0].startswith("[")
            plain = len(key) == 1 and (isinstance(key[0], int) or text)
            document_id = str(key[0]) if plain else json.dumps(key, ensure_ascii=False, separators=(",", ":"))
            rows[table, document_id] = row
    connection.close()
    return rows


def check(cdc, database, what):
    cdc.run("run", "--once")
    cdc.run("verify", "--rows")
    live = live_rows(database)
    folded = {(d["collection"], d["documentId"]): d["document"] for d in cdc.lines("fold", ROOT, "--source", APP)}
    for key in sorted(set(live) | set(folded)):
        if key not in live or key not in folded or not same(live[key], folded[key]):
            raise SystemExit(f"{what}: {key} is {live.get(key)!r} in the table and {folded.get(key)!r} in the fold")
    events = cdc.lines("replay", ROOT)
    places = {(event["source"], event["originEpoch"], event["sequence"]) for event in events}
    if len(places) != len(events):
        raise SystemExit(f"{what}: the replay repeats {len(events) - len(places)} events")
    import read_duckdb

    tables = list((cdc.folder / "warehouse" / "tables").iterdir())
    rows = [row for row in read_duckdb.read(tables[0]).to_pylist() if row["kind"] == "change"]
    counted = {(row["source"], row["originEpoch"], row["sequence"]) for row in rows}
    if len(rows) != len(counted) or counted != places:
        raise SystemExit(f"{what}: DuckDB counts {len(rows)} rows, {len(counted)} different, the replay has {len(places)}")
    reconciled = sum(event.get("tag") == "reconciled" for event in events)
    say(f"{what}: {len(live)} rows = fold, {len(events)} events, each once in DuckDB, {reconciled} of them reconciled")
    return len(events), reconciled


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cdc", required=True, type=pathlib.Path)
    parser.add_argument("--work", required=True, type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    if shutil.which("sqlite3") is None:
        raise SystemExit("the sqlite3 shell is missing; install the package sqlite3")
    rng = random.Random(args.seed)
    say(f"seed {args.seed}")
    folder, database = args.work / "project", args.work / "app.db"
    folder.mkdir(parents=True)
    connection = sqlite3.connect(database)
    if rng.random() < 0.7:
        connection.execute("PRAGMA journal_mode = wal")
    connection.executescript(TABLES.replace("FROM generate_series(1, 50)", "FROM (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n LIMIT 50) SELECT value FROM n)"))
    connection.close()
    cdc = Cdc(args.cdc, folder)
    cdc.run("init")
    cdc.run("attach", str(database), "--id", APP, "--context", ROOT)

    writers = Writers(database, args.seed)
    backup = args.work / "backup.db"
    for kill in range(args.kills):
        process = subprocess.Popen(cdc.command("run"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(0.05 + rng.random() * 1.2)
        if process.poll() is not None:
            raise SystemExit(f"cdc run ended by itself: {process.stderr.read()}")
        process.send_signal(signal.SIGKILL)
        process.wait()
        if kill == args.kills // 2:
            source, target = sqlite3.connect(database, timeout=30), sqlite3.connect(backup)
            source.backup(target)
            source.close()
            target.close()
    say(f"{args.kills} SIGKILLs while writing: {writers.stop()} transactions")
    check(cdc, database, "after the kills")

    for suffix in ["-wal", "-shm", "-journal"]:
        pathlib.Path(str(database) + suffix).unlink(missing_ok=True)
    shutil.copy(backup, database)
    events, reconciled = check(cdc, database, "after an older copy was put back")
    if reconciled == 0:
        raise SystemExit("the older copy was not noticed")
    writers = Writers(database, args.seed + 100)
    time.sleep(1)
    say(f"writing goes on: {writers.stop()} transactions")
    after, _ = check(cdc, database, "after more writes")
    if after <= events:
        raise SystemExit("the writes after the restore were not captured")
    print(f"hostile: ok, {args.kills} kills, {after} events, {reconciled} reconciled, seed {args.seed}")


if __name__ == "__main__":
    os.environ.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    main()
