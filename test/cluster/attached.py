"""One connection that attaches the file of another node: what it writes there arrives, alone and in one transaction
with its own file, of tables with and without a key; and nothing comes twice.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE bag(x, y)"
WRITES = ["INSERT OR REPLACE INTO %s.t VALUES (?1, ?2)", "UPDATE %s.t SET v = ?2 WHERE id < ?1", "DELETE FROM %s.t WHERE id = ?1 + 0 * ?2",
          "INSERT INTO %s.bag VALUES (?1, ?2)", "UPDATE %s.bag SET y = ?2 WHERE x = ?1",
          "DELETE FROM %s.bag WHERE rowid = (SELECT max(rowid) FROM %s.bag WHERE x >= ?1 + 0 * ?2)"]


def write(rng, k, schema):
    text = rng.choice(WRITES)
    return text.replace("%s", schema), [rng.randrange(8), k]


def main():
    rng = seeded()
    for mode in ("auto", "trigger"):
        with Workspace() as ws:
            nats = NatsServer(ws).start()
            # Two clusters, so that the rows of one file are never those of the other.
            config = {"nats": {"urls": [nats.url]}, "capture": mode}
            a, b = (Node(ws, name, config=config, schema=SCHEMA) for name in "ab")
            c, d = (Node(ws, name, config=dict(config, cluster="second"), schema=SCHEMA) for name in "cd")
            for n in (a, b, c, d):
                n.sync()
            a.sql("ATTACH ? AS other", c.db)
            a.sql("INSERT INTO other.t VALUES (100, 'alone')")
            c.sync()
            check(mode + ": a row of the attached file alone arrives", wait_equal([c, d])["t"][1] != [], c.status())
            for k in range(150):
                schemas = rng.choice([["main"], ["other"], ["main", "other"]])
                a.txn([write(rng, k, rng.choice(schemas)) for _ in range(rng.randint(1, 6))])
            a.sql("INSERT INTO other.t SELECT id + 200, v FROM main.t")
            a.sql("INSERT INTO main.bag SELECT x, y FROM other.bag")
            for n in (a, b, c, d):
                check("%s: %s syncs" % (mode, n.name), n.sync() == 1, n.status())
            for pair in ([a, b], [c, d]):
                try:
                    wait_equal(pair, 5)
                    ok("%s: %s: equal" % (mode, " and ".join(n.name for n in pair)))
                except Timeout as e:
                    not_ok("%s: %s: equal" % (mode, " and ".join(n.name for n in pair)), e)
            kinds = [n.one("SELECT count(*) FROM marmot_conflicts") for n in (a, b, c, d)]
            check(mode + ": one writer makes no conflict", kinds == [0, 0, 0, 0], kinds)
    finish()


main()
