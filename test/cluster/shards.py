"""Shards from 1 to 64: each table whole in the one its name decides, all nodes
equal; another number is refused and says why. With one shard a reader that looks
all the time never sees half a transaction: transfers keep their sum, at a node that
takes in what others wrote and puts its own on top.
marmot-test: parallel
"""
import json
import os
import random
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

TABLES = 40
READER = os.path.join(TOP, "test", "lib", "storm_reader.py")
ACCOUNTS, TOTAL = 50, 100000


def shard_of(name, shards):
    h = 14695981039346656037
    for byte in name.lower().encode():
        h = (h ^ byte) * 1099511628211 % 2**64
    return h % shards + 1


def placed(ws, shards):
    nats = NatsServer(ws).start()
    config = {"nats": {"urls": [nats.url]}, "replication_log": {"shards": shards}}
    schema = "".join("CREATE TABLE Tab%d(id INTEGER PRIMARY KEY, v);" % k for k in range(TABLES))
    nodes = [Node(ws, "%s%d" % (name, shards), config=config, schema=schema) for name in "ab"]
    for n in nodes:
        check("%d shards: %s joins" % (shards, n.name), n.sync(60000) == 1, n.status())
    for k, n in enumerate(nodes):
        n.txn([("INSERT INTO Tab%d VALUES (?, ?)" % t, [k, t]) for t in range(TABLES)])
        for t in range(TABLES):
            n.sql("UPDATE Tab%d SET v = v + 1" % t)
    for n in nodes:
        check("%d shards: %s syncs" % (shards, n.name), n.sync(60000) == 1, n.status())
    everywhere(nodes)
    streams = nodes[0].sql("SELECT shard, stream, position FROM marmot_streams ORDER BY shard")
    used = {shard_of("Tab%d" % t, shards) for t in range(TABLES)} | {1}
    check("%d shards: messages lie where the names say" % shards, len(streams) == shards and
          {s for s, _, position in streams if position > 0} == used, [streams, used])
    nodes[1].quit()
    other = 1 if shards > 1 else 2
    n = Node(ws, "other%d" % shards, config=dict(config, replication_log={"shards": other}), schema=schema)
    n.wait_state("join_conflict")
    why = n.status()["why"]
    check("%d shards: a node with %d is refused, both are named" % (shards, other), "shards" in why and
          str(shards) in why and str(other) in why, why)
    n.quit()
    nodes[0].quit()
    nodes[1].config = dict(config, replication_log={"shards": other})
    nodes[1].start()
    said = nodes[1].status()
    if said["state"] == "joining" or said["state"] == "starting":
        wait_until(lambda: nodes[1].status()["state"] not in ("joining", "starting"), 20, "a verdict")
        said = nodes[1].status()
    check("%d shards: nor can a node change its number" % shards, said["state"] == "join_conflict" and
          "shards" in said["why"], said)
    nodes[1].quit()
    nats.kill()


def refused_numbers(ws):
    n = Node(ws, "numbers", config=False)
    for number in (0, 65, -1, "'two'"):
        try:
            said = n.one("SELECT marmot_init(?)", '{"replication_log":{"shards":%s}}' % str(number).replace("'", '"'))
        except SqlError as e:
            said = str(e)
        check("shards = %s is refused at once" % number, "marmot_init" in said and "shards" in said, said)
    n.quit()


def transfers(ws, rng):
    nats = NatsServer(ws).start()
    schema = "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER); CREATE TABLE vault(id INTEGER PRIMARY KEY, balance INTEGER);"
    nodes = [Node(ws, name, urls=nats.url, schema=schema) for name in "xyz"]
    for n in nodes:
        n.wait_state("live")
    nodes[0].txn([("SELECT marmot_policy(?, 'balance', 'delta')", [t]) for t in ("account", "vault")])
    nodes[0].txn([("INSERT INTO vault VALUES (1, ?)", [TOTAL])] +
                 [("INSERT INTO account VALUES (?, 0)", [k]) for k in range(ACCOUNTS)])
    for n in nodes:
        n.sync()
    everywhere(nodes)
    readers = [subprocess.Popen([PYTHON, READER, n.db, str(TOTAL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
               for n in nodes]
    end = time.monotonic() + 5

    def work(n, seed):
        r = random.Random(seed)
        while time.monotonic() < end:
            k, amount = r.randrange(ACCOUNTS), r.randrange(1, 9)
            n.txn([("UPDATE vault SET balance = balance - ?", [amount]),
                   ("UPDATE account SET balance = balance + ? WHERE id = ?", [amount, k]),
                   ("UPDATE account SET balance = balance - 1 WHERE id = ?", [r.randrange(ACCOUNTS)]),
                   ("UPDATE account SET balance = balance + 1 WHERE id = ?", [r.randrange(ACCOUNTS)])])
    threads = [threading.Thread(target=work, args=(n, rng.random())) for n in nodes]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for n in nodes:
        n.sync(20000)
    everywhere(nodes)
    for n, reader in zip(nodes, readers):
        said = json.loads(reader.communicate("")[0].splitlines()[-1])
        note("%s: %s" % (n.name, said))
        check("no reader of %s saw half a transaction" % n.name, reader.returncode == 0 and said.get("changes", 0) > 50, said)
    for n in nodes:
        n.quit()


def main():
    rng = seeded()
    with Workspace() as ws:
        for shards in (1, 64):
            placed(ws, shards)
        refused_numbers(ws)
        transfers(ws, rng)
    finish()


main()
