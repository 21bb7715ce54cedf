"""A random mixture of processes writes one file at once, and much of it fails:
a plain one, an attached alias, captured ones, one whose authorizer denies what
we do, one that is interrupted, one that runs out of memory. The process that
replicates is killed meanwhile. The replica ends equal to the file, in mode
'auto' and in mode 'trigger'.
marmot-test: parallel
"""
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import peek  # noqa: E402
from random_statements import SCHEMA  # noqa: E402

WRITER = os.path.join(TOP, "test", "lib", "mixed_writer.py")
KINDS = ("plain", "alias", "captured", "denied", "interrupted", "starved")
TRANSACTIONS = 120 if PLAIN else 40


def begin(node, kind, seed):
    return subprocess.Popen(
        WRAP + [PYTHON, WRITER, kind, node.db, EXTENSION, json.dumps(node.config), str(seed), str(TRANSACTIONS)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=node.env, text=True, preexec_fn=die_with_parent)


def mixture(ws, rng, mode):
    nats = NatsServer(ws).start()
    a, b = [Node(ws, "%s-%d" % (mode, k), urls=nats.url, schema=SCHEMA,
                 config={"capture": mode, "nats": {"urls": [nats.url]}}) for k in (1, 2)]
    a.sync()
    b.sync()
    writers = {kind: begin(a, kind, rng.randrange(1 << 30)) for kind in KINDS}
    for kind, process in writers.items():
        out, err = process.communicate(timeout=100 * SLOW)
        if kind == "plain":
            a.kill()  # whichever of the others comes first replicates now, also the one that starves
        if not check("%s: the %s writer ends well, and is captured" % (mode, kind),
                     process.returncode == 0 and "not captured" not in err, "%s %s" % (process.returncode, err[-1500:])):
            continue
        said = json.loads(out.splitlines()[-1])
        note("%s %s: %s" % (mode, kind, json.dumps(said)))
        suffered = {"denied": said["denied"], "starved": "MemoryError: " in said["failed"],
                    "interrupted": any("interrupted" in f for f in said["failed"])}
        check("%s: the %s writer wrote, and suffered" % (mode, kind), said["committed"] > 0 and suffered.get(kind, True),
              said)
        check("%s: and was captured all along" % mode, set(said["states"]) <= {"captured"}, said["states"])
    a.start()
    a.sync()
    wait_equal([a, b])
    ok(mode + ": the replica is equal")
    for n in (a, b):
        check("%s: %s is sound" % (mode, n.name), integrity(n.db) == "ok", integrity(n.db))
    check(mode + ": nothing stays in the log", peek(a.db, "SELECT count(*) FROM __marmot__log") == [(0,)], "rows")
    a.sql("INSERT INTO t(a) VALUES ('last')")
    a.sync()
    wait_equal([a, b])
    ok(mode + ": and one write more arrives")
    a.quit()
    b.quit()


def main():
    rng = seeded()
    with Workspace() as ws:
        for mode in ("auto", "trigger"):
            mixture(ws, rng, mode)
    finish()


main()
