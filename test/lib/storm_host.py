"""The process of one node in the storm: it writes at random until it is told to stop.

    storm_host.py DATABASE EXTENSION CONFIG NAME COUNTER SEED PAUSE_MS SHARDS TRANSFERS KIND

KIND is python or shell: then a sqlite3 shell holds the database, fed line by line.

Each noted transaction puts (NAME, n) into `counter`; after its COMMIT the number n
goes to the COUNTER file, unbuffered: what that file says was reported as committed.
It starts behind the highest n of its own database. Lines on stdin, each answered by
one JSON line: late (creates and watches the late table), delta (balances add up from
here on), transfer, stop, sync MS, status, quit.
An error that no healthy database gives ends the process with 3.
"""
import ctypes
import json
import os
import random
import select
import signal
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from storm_load import EXPECTED, LATE, Load  # noqa: E402


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def literal(value):
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return "X'%s'" % value.hex()
    if isinstance(value, float):
        return "%s9e999" % ("-" if value < 0 else "") if abs(value) == float("inf") else repr(value)
    return str(value) if isinstance(value, int) else "'%s'" % value.replace("'", "''")


class Answer:
    def __init__(self, lines):
        self.lines = lines

    def fetchone(self):
        return (self.lines[0],) if self.lines else None

    def fetchall(self):
        return self.lines


class Shell:
    """A sqlite3 shell with the few methods of a connection that are used here."""

    def __init__(self, path, extension):
        self.process = subprocess.Popen(["sqlite3", "-batch", path], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, preexec_fn=die_with_parent)
        self.in_transaction = False
        self.send(".timeout 10000")
        self.execute("SELECT load_extension(?)", (extension,))

    def send(self, line):
        self.process.stdin.write(line.encode() + b"\n.print --mark--\n")
        self.process.stdin.flush()
        lines = []
        while True:
            data = self.process.stdout.readline()
            if not data:
                raise sqlite3.DatabaseError("the shell ended (%s) after %s: %s" % (
                    self.process.wait(), line[:200], lines[-3:]))
            text = data.decode(errors="replace").rstrip("\n")
            if text == "--mark--":
                return lines
            if " marmot " in text[:40]:
                print(text, file=sys.stderr, flush=True)  # the extension's log shares the pipe
            else:
                lines.append(text)

    def execute(self, sql, args=()):
        parts = sql.split("?")
        text = "".join(p + literal(a) for p, a in zip(parts, args)) + parts[-1]
        lines = self.send(text + ";")
        wrong = [t for t in lines if "rror: " in t[:20] or "error near line" in t]
        if text.startswith("BEGIN") and not wrong:
            self.in_transaction = True
        elif text in ("COMMIT", "ROLLBACK") and not wrong:
            self.in_transaction = False
        elif wrong:
            self.in_transaction = any("within a transaction" in t for t in self.send("BEGIN;"))
            if not self.in_transaction:
                self.send("ROLLBACK;")
            raise sqlite3.OperationalError(" ".join(wrong).split("line ")[-1].split(": ", 1)[-1])
        return Answer(lines)

    def close(self):
        self.process.stdin.write(b".quit\n")
        self.process.stdin.close()
        if self.process.wait(30) not in (0, 1):  # 1: some statement met an error, as they do
            raise sqlite3.DatabaseError("the shell ended with %d" % self.process.returncode)


def python_connection(path, extension):
    db = sqlite3.connect(path, isolation_level=None, timeout=10)
    db.enable_load_extension(True)
    db.load_extension(extension)
    return db


class Host:
    def __init__(self, path, extension, config, name, counter, seed, pause, shards, transfers, kind):
        self.rng = random.Random(int(seed))
        self.name = name
        self.pause = float(pause) / 1000
        self.db = Shell(path, extension) if kind == "shell" else python_connection(path, extension)
        self.db.execute("PRAGMA foreign_keys=ON")
        self.patient("SELECT marmot_init(?)", config)
        self.patient("SELECT marmot_watch_all()")
        self.load = Load(self.rng, int(shards), int(transfers))
        self.n = int(self.patient("SELECT coalesce(max(n), 0) FROM counter WHERE node = ?", name)[0])
        self.fd = os.open(counter, os.O_CREAT | os.O_RDWR, 0o644)
        self.errors = {}
        self.commits = 0
        if int(self.patient("SELECT count(*) FROM sqlite_schema WHERE name = 'late'")[0]):
            self.late()

    def patient(self, sql, *args):
        """Again while other connections hold the lock: a start is not to fail of that."""
        end = time.monotonic() + 20
        while True:
            try:
                return self.db.execute(sql, args).fetchone()
            except sqlite3.OperationalError as e:
                if "locked" not in str(e) or time.monotonic() > end:
                    raise

    def late(self):
        for sql in LATE:
            self.patient(sql)
        self.patient("SELECT marmot_watch('late')")
        self.load.late = True

    def met(self, error):
        text = str(error)
        if not any(word in text for word in EXPECTED):
            raise error
        self.errors[text] = self.errors.get(text, 0) + 1

    def run(self, sql, args=()):
        """One statement of the load; false when no transaction is open after it. A lock ends the whole:
        what follows might succeed, and half a transfer would be committed."""
        try:
            self.db.execute(sql, args).fetchall()
        except sqlite3.Error as e:
            self.met(e)
            if "locked" in str(e) and self.db.in_transaction:
                self.db.execute("ROLLBACK")
        return self.db.in_transaction

    def write(self):
        kind = self.rng.random()
        if kind < 0.1:
            for sql, args in self.load.some()[:1]:
                self.run(sql, args)
            return
        if kind < 0.2:
            steps = []
        else:
            steps = self.load.transaction()
        if not self.run("BEGIN" if kind > 0.96 else "BEGIN IMMEDIATE"):
            return
        at = self.rng.randrange(len(steps) + 1)
        steps = steps[:at] + [("INSERT INTO counter VALUES (?, ?)", (self.name, self.n + 1))] + steps[at:]
        for sql, args in steps:
            if not self.run(sql, args):
                return
        if 0.9 < kind < 0.96:
            self.run("ROLLBACK")
            return
        if self.run("COMMIT"):
            self.run("ROLLBACK")
        elif self.counted():
            self.committed()

    def counted(self):
        return int(self.patient("SELECT count(*) FROM counter WHERE node = ? AND n = ?", self.name, self.n + 1)[0])

    def committed(self):
        self.n += 1
        self.commits += 1
        os.pwrite(self.fd, b"%12d" % self.n, 0)

    def answer(self, line):
        words = line.split()
        if words[0] == "late":
            self.late()
            return {"late": 1}
        if words[0] == "delta":
            self.patient("SELECT marmot_policy('account', 'balance', 'delta')")
            self.patient("SELECT marmot_policy('vault', 'balance', 'delta')")
            return {"delta": 1}
        if words[0] == "transfer":
            self.load.transfers = True
            return {"transfer": 1}
        if words[0] == "sync":
            try:
                return {"sync": int(self.db.execute("SELECT marmot_sync(?)", (int(words[1]),)).fetchone()[0])}
            except sqlite3.Error as e:
                return {"sync": 0, "error": str(e)}
        if words[0] == "status":
            return json.loads(self.db.execute("SELECT marmot_status()").fetchone()[0])
        return {"commits": self.commits, "errors": self.errors}

    def serve(self):
        writing = True
        print(json.dumps({"ready": self.n}), flush=True)
        pending = b""
        while True:
            wait = self.pause * 2 * self.rng.random() if writing else None
            if select.select([0], [], [], wait)[0]:
                data = os.read(0, 4096)
                if not data:
                    return
                pending += data
            while b"\n" in pending:
                line, pending = pending.split(b"\n", 1)
                if line == b"quit":
                    return
                if line == b"stop":
                    writing = False
                print(json.dumps(self.answer(line.decode())), flush=True)
            if writing:
                self.write()


def main():
    host = Host(*sys.argv[1:])
    try:
        host.serve()
    except sqlite3.Error as e:
        print("unexpected: %s: %s" % (type(e).__name__, e), file=sys.stderr, flush=True)
        os._exit(3)
    host.db.close()


main()
