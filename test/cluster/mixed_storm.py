"""Everything at once: two to five nodes write, cut off, killed and restarted, and do what administrators do,
marmot_restore, marmot_snapshot, marmot_reconcile, marmot_verify, marmot_stop; logs are small and are purged;
newcomers come, empty, with a copy of a file, or with rows of their own and marmot_rejoin. One danger more a storm:
files set back to a backup, a server that comes back without the end of its log, a log that is gone and a new
epoch, tables that are left and watched again. In most the schema changes, too, at each node in its own time
(lib/mix_schema.py). When all is healed every node is live and holds the same, and what was reported as committed is
there, once.
marmot-test: parallel limit=300

    mixed_storm.py [--seconds N] [--seed S] [--danger D] [--acts A,..] [--blow B]

Without a seed: a storm of one schema (--acts '') and a shorter one with every act, with new seeds; with N as many as
fit in N seconds. Each blows for B seconds (5). After a failure the folder stays.
"""
import argparse
import itertools
import json
import os
import random
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from mix_load import FOUNDERS, POLICIES, SCHEMAS, judge  # noqa: E402
from mix_node import Calm, One, copy_alive  # noqa: E402
from mix_schema import ACTS, Schema  # noqa: E402
from rejoining import named, rejoin  # noqa: E402
from storm_check import FOLDED, bookkeeping, states  # noqa: E402
from storm_trouble import MORE, harm  # noqa: E402

STORM_SECONDS = 5 if PLAIN else 10
SETTLE_SECONDS = 60
ADMIN = ["kill"] * 3 + ["quit", "away", "stop"] + ["restore"] * 2 + ["snapshot"] * 2 + ["reconcile", "verify"]
DANGERS = ["none", "none", "set_back", "set_back", "tail", "epoch", "unwatch"]
totals = {}


def count(name, n=1):
    totals[name] = totals.get(name, 0) + n


def planned(ws, rng, danger, acts):
    """What a seed makes of a storm. One danger a storm, since two may lose what neither does: a file set back and
    a server without its tail both forget the same change; a log that begins anew and a file of before."""
    danger = danger or rng.choice(DANGERS)
    acts = [a for a in ACTS if a in acts] if acts is not None else rng.choice(
        [[], [a for a in ACTS if rng.random() < 0.5], list(ACTS)])
    if danger == "tail" and "turn" in acts:
        acts.remove("turn")  # what the server forgets is sent again as it was
    most = rng.choice([60, 100, 200, 1000])
    shards = rng.choice([1, 1, 2, 3, 4])
    if danger == "tail":
        most = 100000  # both snapshots, and the log before them, must not lie behind what the server still has
    store = rng.choice([{"store": "nats"}, {"store": "file", "file": {"path": os.path.join(ws.dir, "snapshots")}}])
    plan = {"danger": danger, "shards": shards,
            "capture": rng.choice(["auto", "auto", "trigger", "hook"]),
            "autoincrement": rng.choice(["shared", "partition"]), "admin": list(ADMIN), "admin_chance": 0.04,
            "nodes": rng.choice([2, 3, 3, 4]), "acts": acts,
            # README: a table without a key that is new in what the server loses may hold rows twice.
            "schema": Schema(random.Random(rng.random()), acts, danger != "tail"), "calm": Calm(),
            "join": "adopt" if danger == "unwatch" else rng.choice([None, None, "merge"]) if "leave" in acts else None}
    plan["pause"] = 0.008 * plan["nodes"]
    plan["config"] = {"replication_log": {"shards": shards, "max_entries": most, "compress": rng.random() < 0.5,
                                          "part_size": rng.choice([65536, 524288])},
                      "autoincrement": plan["autoincrement"], "capture": plan["capture"], "snapshot": store}
    # README, mode 'hook': a copy of the content that is brought in takes away what was written past it.
    plan["past_hook"] = plan["capture"] == "hook" and most == 1000 and danger in ("none", "set_back", "unwatch") and \
        not acts
    if danger in ("set_back", "unwatch"):
        plan["admin"] += [danger] * 3
    if acts:
        plan["admin"] += ["schema"] * (4 + 2 * len(acts))
        plan["admin_chance"] = 0.08
    return plan


class Storm:
    def __init__(self, ws, seed, danger, acts):
        self.ws, self.rng = ws, random.Random(seed)
        self.plan = planned(ws, self.rng, danger, acts)
        hidden = ("admin", "config", "pause", "admin_chance", "schema", "calm", "ones")
        shown = {k: v for k, v in self.plan.items() if k not in hidden}
        note("seed %d: %s, %s" % (seed, json.dumps(shown), json.dumps(self.plan["config"]["replication_log"])))
        self.server = NatsServer(ws).start()
        self.ones = self.plan["ones"] = []
        self.lost = False
        for _ in range(self.plan["nodes"]):
            self.add(schema=SCHEMAS)
        first = self.ones[0].node
        first.sync()
        first.txn([(s, ()) for s in FOUNDERS.replace("\n", "").split(";") if s])
        for policy in POLICIES:
            first.sql("SELECT marmot_policy(?, ?, ?)", *policy)
        self.settle()

    def add(self, **more):
        n = len(self.ones)
        one = One(self.ws, self.server, chr(ord("a") + n), n + 1, self.rng.randrange(1 << 30), self.plan,
                  **dict({"join": self.plan["join"]}, **more))
        self.ones.append(one)
        return one

    # While it blows.

    def run(self, seconds):
        for o in self.ones:
            o.begin()
        events = [self.newcomer] * self.rng.choice([0, 1, 1, 2])
        if self.plan["danger"] == "epoch":
            events.append(self.new_epoch)
        elif self.plan["danger"] == "tail":
            events += [self.tail] * self.rng.choice([1, 2, 3])
        start = time.monotonic()
        due = sorted([(start + seconds * self.rng.uniform(0.2, 0.9), k, e) for k, e in enumerate(events)])
        under_way = lambda: not all(self.plan["schema"].steady.values())  # noqa: E731
        while time.monotonic() < start + seconds or due or (under_way() and time.monotonic() < start + 5 * seconds):
            if not self.plan["schema"].closing or self.rng.random() < 0.2:
                count("misfortunes: " + harm(self.rng, self.server, self.ones, MORE))
            self.look()
            self.plan["schema"].look(self.ones)
            if due and due[0][0] < time.monotonic():
                due.pop(0)[2]()
        self.heal()
        for o in self.ones:
            o.stop()
        wait_until(lambda: self.look() or all(o.ended.is_set() for o in self.ones), 120, "all have ended")
        self.look()

    def tail(self):
        """One that is lost before the loss of another is mended would be more than a server does."""
        done = set()

        def mended():
            self.all_well()
            for o in self.ones:
                with o.turn:
                    if o not in done and o.live():
                        done.add(o)
            return len(done) == len(self.ones)
        try:
            if self.lost:
                wait_until(mended, SETTLE_SECONDS / 2, "all have what the server has lost")
            count("misfortunes: " + harm(self.rng, self.server, self.ones, ["tail"]))
            self.lost = True
        except Timeout:
            self.all_well()
            count("misfortunes: no second tail")

    def heal(self):
        for o in self.ones:
            o.proxy.heal(True)

    def all_well(self):
        for o in self.ones:
            if o.failed:
                raise Timeout(o.failed)

    def look(self):
        """Nobody has failed, and nobody hangs."""
        self.all_well()
        for o in self.ones:
            if o.thread.is_alive() and not o.ended.is_set() and time.monotonic() - o.since > 70 * SLOW:
                raise Timeout("%s hangs in %s" % (o.name, o.doing))

    def newcomer(self):
        shapes = any(self.plan["schema"].goal.values())
        kinds = ["empty"] * 2 + (["merge", "adopt"] if not shapes else [])
        if self.plan["danger"] == "none":
            kinds += ["copy"] * 2  # README: not of a file that was set back
        kind = self.rng.choice(kinds)
        count("newcomers: " + kind)
        if len(self.ones) >= 5:
            return
        if kind == "copy":
            self.copy(self.ones[0])
        self.plan["schema"].hurry = True
        if kind in ("merge", "adopt"):
            o = self.with_rows(kind)
        else:
            o = self.add()
        # Before that it has no ids of its own; and no tables, if it is empty.
        with self.plan["calm"].asked_by(o):
            self.patiently([o], lambda: not self.waits([o]), "%s has not joined" % o.name)
        self.plan["schema"].hurry = False
        o.begin()

    def copy(self, o):
        """README, copied files: not while a table joins, whose rows would stand for the copy's own."""
        def done():
            self.all_well()
            with o.turn:
                if any(t["state"] == "joining" for t in o.node.status()["tables"]):
                    return False
                copy_alive(o.db, os.path.join(self.ws.dir, chr(ord("a") + len(self.ones)) + ".db"))
                return True
        wait_until(done, SETTLE_SECONDS, "no table joins at %s" % o.name)

    def with_rows(self, how):
        """One that began for itself: the cluster's rows, with or without its own."""
        base = (len(self.ones) + 1) * 1000000
        keys = range(base + 1, base + 4)
        rows = "".join("INSERT INTO own VALUES (%d, 'own', 0, 0, 'u%d'); INSERT INTO loose VALUES (%d, 'own');"
                       % (x, x, x) for x in keys)
        o = self.add(schema=SCHEMAS + FOUNDERS + rows, join="strict")
        o.writes.last = base + 3
        if how == "merge":
            o.writes.own.update({x: (0, 0) for x in keys})
        else:
            o.writes.never.update(keys)

        def through():
            self.all_well()
            if o.node.status()["state"] == "join_conflict":
                o.call("rejoin", "'%s'" % how)
            return o.live()
        wait_until(through, 3 * SETTLE_SECONDS, "%s leaves join_conflict by %s: %s" % (o.name, how, o.refused))
        return o

    def waits(self, ones):
        for o in ones:
            o.writes.tables.catch_up(o)
        lines = [o.name + " is not live" for o in ones if not o.live()]
        return lines + [line for line in states(ones) if "outbox" not in line or "is live" not in line]

    def new_epoch(self):
        """The log is gone: one node seeds, the others follow by themselves. With several shards nobody may hold
        all that others have folded (README: they wait for one another): there all have everything before."""
        for o in self.ones:
            o.turn.acquire()
        try:
            self.heal()
            if self.plan["shards"] > 1 or self.rng.random() < 0.3:
                self.settle()
            else:
                # Who joins, or brings in a copy, holds nothing that it could go on with.
                for o in self.ones:
                    wait_until(o.live, SETTLE_SECONDS, "%s is live" % o.name)
            for o in self.ones:
                o.writes.tables.catch_up(o)
            self.server.wipe()
            for o in self.ones:
                o.since = time.monotonic()
                o.steps(self.rng.randrange(4))
            self.server.start()
            for o in self.ones:
                o.node.wait_state("diverged", 40)
            seed = named(self.rng.choice(self.ones).node, [o.node for o in self.ones])[0]
            self.seed_on([seed] + [o.node for o in self.ones if o.node is not seed])
            for o in self.ones:
                wait_until(o.live, 40, "%s is live in the new epoch" % o.name)
        finally:
            for o in self.ones:
                o.since = time.monotonic()
                o.turn.release()

    def seed_on(self, nodes):
        """The one that is named, or, where that waits for a copy of some table, another, as it says."""
        for n in nodes:
            try:
                return rejoin(n, "seed")
            except SqlError as e:
                if "call it on a node that does" not in str(e):
                    raise
        raise Timeout("nobody can seed")

    # When it is over.

    def patiently(self, ones, ready, what):
        """As long as what waits becomes less: a log of 60 messages is emptied by one snapshot after another."""
        last = time.monotonic() + 3 * SETTLE_SECONDS * SLOW
        least, end = None, last
        while not ready():
            self.all_well()
            left = sum(o.node.status()["outbox"]["rows"] for o in ones)
            if least is None or left < least:
                least, end = left, time.monotonic() + SETTLE_SECONDS * SLOW
            if time.monotonic() > min(end, last):
                raise Timeout("%s: %s" % (what, self.waits(ones)))
            time.sleep(0.05)

    def mended(self):
        """In mode 'hook' nobody makes room in a log that is full, until what was altered is reconciled."""
        for o in self.ones:
            o.writes.tables.mend(o, 0)
        return True

    def settle(self):
        rounds = [0]

        def twice():
            self.mended()
            rounds[0] = rounds[0] + 1 if all([o.live() and o.synced(5000) for o in self.ones]) else 0
            return rounds[0] == 2
        self.patiently(self.ones, twice, "not in sync")

    def all_call(self, what):
        """On all at once; one that a busy server did not answer in time says so, and is called again."""
        answers, said = {}, []

        def through():
            todo = [o for o in self.ones if o not in answers]
            for o in todo:
                o.node.send_sql("SELECT marmot_%s()" % what)
            for o in todo:
                try:
                    answers[o] = json.loads(o.node.receive()[0][0])
                except SqlError as e:
                    said.append("%s: %s" % (o.name, e))
                    if "no answer from" not in str(e) and "NATS server" not in str(e):
                        raise
            return len(answers) == len(self.ones)
        wait_until(through, SETTLE_SECONDS, "marmot_%s on all: %s" % (what, said))
        return list(answers.items())

    def warnings(self, o):
        """README, autoincrement: the tables that are not declared AUTOINCREMENT are named."""
        return [w for w in o.node.status()["warnings"] if not w.startswith("autoincrement is 'partition'")]

    def judge(self):
        """Lines that say what is wrong."""
        self.patiently(self.ones, lambda: self.mended() and not self.waits(self.ones) and
                       self.plan["schema"].finish(self.ones), "not all have joined")
        for o in self.ones:
            o.writes.step(o)
        self.add()  # empty
        self.patiently(self.ones, lambda: not self.waits(self.ones), "the last newcomer has not joined")
        self.settle()
        nodes = [o.node for o in self.ones]
        try:
            common = wait_equal(nodes, 5)
        except Timeout as e:
            return [str(e)]
        problems = [judge([o.writes for o in self.ones], common)]
        problems += ["marmot_verify: %s" % g for g in json.loads(nodes[0].one("SELECT marmot_verify(20000)"))
                     if not g.get("equal")][:4]
        for o, found in self.all_call("reconcile"):
            if found["rows"]:
                problems.append("marmot_reconcile at %s: %s" % (o.name, [t for t in found["tables"] if t["rows"]]))
        nodes[-1].one("SELECT marmot_snapshot()")
        self.all_call("restore")
        self.settle()
        try:
            wait_until(lambda: not bookkeeping(self.ones, FOLDED), 5, "equal bookkeeping", every=0.3)
        except Timeout:
            problems += bookkeeping(self.ones, FOLDED)
        if wait_equal(nodes, 5) != common:
            problems.append("marmot_reconcile, marmot_snapshot or marmot_restore changed rows")
        for o in self.ones:
            wait_until(lambda: not self.warnings(o), 20, "%s has nothing to warn of: %s" % (o.name, self.warnings(o)))
            said = integrity(o.db)
            problems.append("%s is damaged: %s" % (o.name, said) if said != "ok" else "")
        return [p for p in problems if p]

    def end(self):
        for o in self.ones:
            count("transactions", o.writes.committed)
            for what, n in o.done.items():
                count("done: " + what, n)
            for what, said in o.refused.items():
                count("refused: " + what, len(said))
            o.stop()
            o.leave.set()


def one(seed, seconds, danger, acts):
    with Workspace() as ws:
        storm = None
        try:
            storm = Storm(ws, seed, danger, acts)
            storm.run(seconds)
            blown = time.monotonic()
            problems = storm.judge()
        except (Timeout, SqlError, Died) as e:
            problems = ["%s: %s" % (type(e).__name__, e)]
        took = "" if problems else "%.1f s after the storm" % (time.monotonic() - blown)
        if problems:
            for p in problems:
                note(p)
            keep(ws, seed, storm)
        if storm is not None:
            storm.end()
        good = check("seed %d: equal, with everything%s" % (seed, took and ", " + took), not problems, problems[:2])
    count("storms")
    return good


def keep(ws, seed, storm):
    """The folder, with what each node knew."""
    for o in storm.ones if storm else []:
        o.stop()
    for o in storm.ones if storm else []:
        if o.thread.is_alive() and not o.ended.wait(10):
            note("%s is still in %s" % (o.name, o.doing))
            continue
        try:
            note("%s: %s" % (o.name, json.dumps({k: v for k, v in o.node.status().items() if k != "tables"})[:1500]))
        except (Died, SqlError, ValueError, OSError, AttributeError) as e:
            note("%s: %s" % (o.name, e))
        with open(os.path.join(ws.dir, o.name + ".writes"), "w") as f:
            f.write("".join("%s: %s\n" % (k, v) for k, v in {**vars(o.writes), **vars(o.writes.tables)}.items()) +
                    "%s\n" % o.refused)
    folder = os.path.join(tempfile.gettempdir(), "marmot-mixed-%d" % seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ws.dir, folder, symlinks=True)
    note("folder " + folder)


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=os.environ.get("MARMOT_TEST_SEED"))
    parser.add_argument("--danger", choices=DANGERS)
    parser.add_argument("--acts", type=lambda s: s.split(",") if s else [])
    parser.add_argument("--blow", type=float, default=STORM_SECONDS)
    options = parser.parse_args()
    end = time.monotonic() + (options.seconds or 0)
    short = options.acts is None and options.seconds is None and options.seed is None
    kinds = [(options.acts, options.blow)]
    if short:
        kinds = [([], options.blow)] + [(list(ACTS), options.blow / 2)] * PLAIN
    for number in itertools.count():
        seed = int(options.seed) if options.seed is not None else random.SystemRandom().randrange(1, 1 << 31)
        acts, blow = kinds[number % len(kinds)]
        one(seed, blow, options.danger, acts)
        if options.seed is not None or (number + 1 >= len(kinds) and time.monotonic() > end):
            break
    note(", ".join("%s %d" % x for x in sorted(totals.items())))
    finish()


main()
