"""One node of the mixed storm: a host process, its link, a thread that writes and does what
administrators do.

    o = One(ws, server, "a", 1, seed, plan, schema=..)
    o.begin()                   # the thread: writes until o.stop()
    with o.turn: ..             # it stands still between two transactions
    o.failed                    # what went wrong: a line, or None
    o.leave.set()               # at the very end: a process ends with the thread that started it

Calls of ours that meet a broken link say so and are counted in `refused`, by what was called:
once all is healed they have to work.
"""
import contextlib
import json
import os
import random
import shutil
import sqlite3
import threading
import time
import traceback

from marmot_test import SLOW, Died, Node, SqlError, Timeout, wait_until
from mix_load import Writes
from mix_schema import STEPS
from storm_proxy import Proxy

COPY_ENDS = ("-wal", "-shm")


def copy_alive(source, target):
    """The backup of a running program, as .backup makes it. README: notes of triggers that wait in it count twice."""
    def taken():
        a, b = sqlite3.connect(source, timeout=20 * SLOW), sqlite3.connect(target)
        try:
            a.backup(b)
            return b.execute("SELECT count(*) FROM __marmot__log").fetchone() == (0,)
        finally:
            a.close()
            b.close()
    wait_until(taken, 20, "a backup of %s without notes" % source)


class Calm:
    """Who has waited for long, for a place in a log of 60 messages say, is let through: the others stand still.
    A node that is alive waits for seconds between two attempts, those that are started again take all the room."""
    PATIENCE = 15

    def __init__(self):
        self.waits = {}

    @contextlib.contextmanager
    def asked_by(self, o):
        self.waits[o] = time.monotonic()
        try:
            yield
        finally:
            del self.waits[o]

    def wanted(self, o):
        late = time.monotonic() - self.PATIENCE * SLOW
        return any(since < late for who, since in list(self.waits.items()) if who is not o)


class One:
    def __init__(self, ws, server, name, number, seed, plan, schema=None, join=None):
        self.name, self.plan = name, plan
        self.rng = random.Random(seed)
        self.writes = Writes(self.rng, name, number, plan)
        self.proxy = Proxy(server.port)
        nats = {"urls": ["nats://127.0.0.1:%d" % self.proxy.port], "reconnect_wait_seconds": 1}
        config = dict(plan["config"], nats=nats, conflict=self.rng.choice(["column", "column", "row"]),
                      logging={"verbose": True})
        if join:
            config["join"] = join
        self.refused, self.done = {}, {}
        self.sad_since = None
        self.failed = None
        self.since, self.doing = time.monotonic(), "start"
        self.turn = threading.Lock()
        self.told, self.ended, self.leave = threading.Event(), threading.Event(), threading.Event()
        self.node = Node(ws, name, config=config, schema=schema)
        self.db = self.node.db
        self.thread = threading.Thread(target=self.run)

    # For the judges of the other storm.

    def ask(self, words, seconds=None):
        return self.node.status()

    # Life.

    def begin(self):
        self.thread.start()

    def stop(self):
        self.told.set()

    def run(self):
        self.guarded(self.write_on)
        self.ended.set()
        self.leave.wait()

    def guarded(self, what):
        try:
            what()
        except (SqlError, Died, Timeout, ValueError, OSError, sqlite3.Error) as e:
            self.failed = "%s in %s: %s: %s %s" % (self.name, self.doing, type(e).__name__, e,
                                                   traceback.format_exc()[-600:])

    def write_on(self):
        while not self.told.is_set():
            with self.turn:
                calm = self.plan["calm"].wanted(self)
                self.stand_still() if calm else self.work()
            self.since = time.monotonic()
            time.sleep(0.1 if calm else self.rng.random() * self.plan["pause"])

    def work(self):
        self.say("a transaction")
        self.writes.step(self)
        if self.plan["capture"] != "hook" and self.rng.random() < 0.05:
            self.say("a shell")
            self.writes.shell(self)
        if self.rng.random() < self.plan["admin_chance"]:
            self.admin(self.rng.choice(self.plan["admin"]))

    def stand_still(self):
        self.say("calm")
        self.writes.tables.catch_up(self)
        self.live()  # and makes room

    def say(self, what):
        self.since, self.doing = time.monotonic(), what

    def start(self):
        """With a file that was locked meanwhile by a copy that is brought in. All tables are watched again."""
        self.node.start()
        self.writes.tables.out = False

    def count(self, what):
        self.done[what] = self.done.get(what, 0) + 1

    def kill(self, at):
        self.count("kill at " + at)
        self.node.kill()

    def kill_soon(self):
        time.sleep(self.rng.random() * 0.01)
        self.kill("a transaction")
        self.start()

    def steps(self, n):
        for _ in range(n):
            self.writes.step(self)

    def synced(self, ms):
        try:
            return self.node.sync(ms) == 1
        except SqlError:
            return False

    def live(self):
        """True when it is. A log is full for two minutes where who took a snapshot was killed at it: the lease."""
        status = self.node.status()
        if status["state"] == "log_full":
            self.call("snapshot", killed=0)
        if status["state"] != "diverged":
            self.sad_since = None
        elif self.sad_since is None:
            self.sad_since = time.monotonic()
        elif time.monotonic() - self.sad_since > 10 * SLOW:
            self.follow(status["remedy"])
        return status["state"] == "live"

    def follow(self, remedy):
        """It does not heal by itself: the call that the status names, here, once every node has been heard."""
        begun = [o for o in self.plan["ones"] if o.thread.ident is not None]
        if "marmot_rejoin('seed') on node %d (this one)" % self.node.one("SELECT marmot_node_id()") in remedy and \
                remedy.count("holds up to") >= len(begun) * self.plan["shards"]:
            self.call("rejoin", "'seed'", killed=0)

    def call(self, what, args="", killed=0.25):
        """The parsed answer; None where it was refused, or killed at it."""
        self.node.send_sql("SELECT marmot_%s(%s)" % (what, args))
        if self.rng.random() < killed:
            time.sleep(self.rng.random() * self.rng.choice([0.02, 0.2, 0.5]))
            self.kill(what)
            self.start()
            return None
        try:
            answer = json.loads(self.node.receive()[0][0])
        except SqlError as e:
            self.refused.setdefault(what, []).append(str(e))
            return None
        self.count(what)
        return answer

    # What administrators do.

    def admin(self, what):
        self.say(what)
        getattr(self, "do_" + what)()

    def do_kill(self):
        self.kill("rest")
        self.start()

    def do_quit(self):
        self.count("quit")
        self.node.quit()
        self.start()

    def do_away(self):
        """Long enough for the log to move on; shells write the file meanwhile."""
        self.kill("leave")
        for _ in range(self.rng.randrange(4)):
            time.sleep(self.rng.random())
            if self.plan["capture"] != "hook":
                self.writes.shell(self)
        self.start()

    def do_stop(self):
        self.count("stop")
        self.node.sql("SELECT marmot_stop()")
        self.steps(2)
        self.node.init()

    def do_snapshot(self):
        self.call("snapshot")

    def do_restore(self):
        self.call("restore")

    def do_verify(self):
        answer = self.call("verify", "2000")
        # What a shell wrote past the hook is seen there alone until it is reconciled.
        past = ["own", "loose"] * self.plan["past_hook"] + list(STEPS)
        unequal = [g for g in answer or [] if g.get("equal") is False and g.get("table") not in past]
        # Where the server has just lost its tail the nodes are apart until each has seen that.
        if unequal and self.plan["danger"] != "tail":
            raise ValueError("marmot_verify: %s" % unequal[:4])

    def do_reconcile(self):
        """Nothing was written past the capture, so nothing is to be found; in mode 'hook' what a shell wrote."""
        written = self.plan["past_hook"]
        if written:
            self.writes.shell(self, count=False)
        answer = first = self.call("reconcile")
        if answer is None and written:
            answer = self.until_reconciled()
        # One that was killed may have sent them.
        if answer and answer["rows"] not in ([0, 2] if written and first is None else [2] if written else [0]):
            raise ValueError("marmot_reconcile found %s" % [t for t in answer["tables"] if t["rows"]])

    def until_reconciled(self):
        self.say("reconcile, until it is done")
        return wait_until(lambda: self.call("reconcile"), 120, "%s: marmot_reconcile" % self.name, every=0.1)

    def do_set_back(self):
        """A backup is put back; what was written after it is in the log, or it would be lost with the file."""
        if not self.synced(3000):
            return
        self.steps(3)
        keep = self.db + "-keep"
        if self.plan["capture"] != "hook" or self.rng.random() < 0.5:
            copy_alive(self.db, keep)
        else:
            self.node.quit()
            shutil.copy(self.db, keep)
            if os.path.exists(self.db + "-wal"):
                shutil.copy(self.db + "-wal", keep + "-wal")
            self.start()
        self.steps(self.rng.choice([3, 30]))
        if self.rng.random() < 0.3:
            self.call("snapshot")
        if self.synced(8000):
            self.say("set_back, by now on its way")
            self.put_back(keep)
        for end in ("",) + COPY_ENDS:
            if os.path.exists(keep + end):
                os.unlink(keep + end)

    def put_back(self, keep):
        self.node.quit() if self.rng.random() < 0.5 else self.kill("set_back")
        for end in COPY_ENDS:
            if os.path.exists(self.db + end):
                os.unlink(self.db + end)
        if self.rng.random() < 0.5:
            with open(keep, "rb") as s, open(self.db, "r+b") as t:
                t.truncate()
                shutil.copyfileobj(s, t)
        else:
            os.replace(keep, self.db)
        if os.path.exists(keep + "-wal"):
            os.replace(keep + "-wal", self.db + "-wal")
        self.start()
        self.count("set_back")
        # The numbers of the ids that SQLite makes are set back too, until the file has seen the log.
        self.writes.ids, self.writes.tables.behind = False, True
        self.until_synced()
        self.writes.tables.catch_up(self)
        # There a file that was written past us counts as not captured, and its node takes no snapshot. Where the
        # newest one has a table of other columns it is done later (mend), when all have them.
        if self.plan["capture"] == "hook":
            wait_until(lambda: self.call("reconcile") or "cannot be compared" in self.refused.get("reconcile", [""])[-1],
                       120, "%s: marmot_reconcile" % self.name, every=0.1)

    def until_synced(self):
        def ready():
            self.writes.step(self)
            # The columns of a table were set back, too.
            if self.node.status()["state"] == "diverged":
                self.writes.tables.catch_up(self)
            return self.synced(2000)
        with self.plan["calm"].asked_by(self):
            wait_until(ready, 60, "%s is in sync" % self.name)
        self.writes.ids = True

    def do_unwatch(self):
        """With `join` adopt the table takes the cluster's rows when it is watched again; else it may stay out."""
        if self.node.config.get("join") != "adopt":
            return
        self.count("unwatch")
        table = self.rng.choice(["shared", "plain", "uniq", "bag"])
        self.node.sql("SELECT marmot_unwatch(?)", table)
        self.steps(3)
        self.node.sql("SELECT marmot_watch(?)", table)

    def do_schema(self):
        self.writes.tables.act(self)
