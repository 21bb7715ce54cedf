"""The process of one node that writes without end: a host in fault tests.

    cluster_writer.py DATABASE EXTENSION CONFIG NAME COUNTER SEED PAUSE_MS

Each transaction puts one row (NAME, n) into `one`, `two` and the keyless `bag`
(which would show what is applied twice), and mostly changes a row that all writers change (`shared`); after its COMMIT the number n
goes to the COUNTER file, at its place, unbuffered: what that file says was
reported as committed. Starts behind the highest n of its own database. PAUSE_MS:
between transactions at random up to that. A line `stop` on stdin ends the
writing: it syncs, prints its status as JSON and waits for the next line, which
ends it.
"""
import os
import random
import select
import sqlite3
import sys
import time


def write_once(db, rng, name, n):
    db.execute("BEGIN IMMEDIATE")
    db.execute("INSERT INTO one VALUES (?, ?, ?)", (name, n, rng.randbytes(rng.randrange(60))))
    if rng.random() < 0.7:
        db.execute("INSERT OR REPLACE INTO shared VALUES (?, ?, ?)", (rng.randrange(10), name, n))
    if rng.random() < 0.2:
        db.execute("UPDATE shared SET n = n + 1 WHERE id < ?", (rng.randrange(10),))
    if rng.random() < 0.1:
        db.execute("DELETE FROM shared WHERE id = ?", (rng.randrange(10),))
    db.execute("INSERT INTO bag VALUES (?, ?)", (name, n))
    db.execute("INSERT INTO two VALUES (?, ?, ?)", (name, n, "x" * rng.randrange(60)))
    db.execute("COMMIT")


def main():
    path, extension, config, name, counter, seed, pause = sys.argv[1:]
    rng = random.Random(int(seed))
    slow = float(os.environ.get("MARMOT_TEST_SLOW") or 1)
    db = sqlite3.connect(path, isolation_level=None, timeout=10 * slow)
    db.enable_load_extension(True)
    db.load_extension(extension)
    db.execute("SELECT marmot_init(?)", (config,)).fetchone()
    db.execute("SELECT marmot_watch_all()").fetchone()
    n = db.execute("SELECT coalesce(max(n), 0) FROM one WHERE node = ?", (name,)).fetchone()[0]
    fd = os.open(counter, os.O_CREAT | os.O_WRONLY, 0o644)
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        n += 1
        write_once(db, rng, name, n)
        os.pwrite(fd, b"%12d" % n, 0)
        time.sleep(rng.random() * float(pause) / 1000)
    sys.stdin.readline()
    db.execute("SELECT marmot_sync(30000)").fetchone()
    print(db.execute("SELECT marmot_status()").fetchone()[0], flush=True)
    sys.stdin.readline()
    db.close()


main()
