"""Strangers publish on the cluster's subject: noise, torn and altered messages,
repeated ones, other epochs, holes, other lineages, parts that lead nowhere. All
is ignored by every node alike, and replication goes on; a message of a stranger
who keeps to the contract counts.
marmot-test: parallel
"""
import base64
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from cluster_nats import *  # noqa: E402,F403
from cluster_wire import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE u(k TEXT NOT NULL PRIMARY KEY, v);"
STREAM, SUBJECT = "marmot-changes-c-1", "marmot-change-log-1"
ROUND = 60  # messages of one kind


def real_messages(raw):
    """What the stream holds, as stored: [(bytes, compressed?)]."""
    out = []
    for seq in range(1, raw.stream(STREAM)[1]["last_seq"] + 1):
        m = raw.api("STREAM.MSG.GET." + STREAM, {"seq": seq})["message"]
        out.append((base64.b64decode(m.get("data", "")), "zstd" in base64.b64decode(m.get("hdrs", "")).decode()))
    return out


def noise(rng, real):
    out = []
    for _ in range(ROUND):
        data = rng.randbytes(rng.choice([0, 1, 2, 7, 60, 3000]))
        # 08 and a number above 1 would be a later version: that one must not be passed over.
        out.append((b"\xff" + data[1:] if data[:1] == b"\x08" else data, None))
        whole, zstd = rng.choice(real)
        out.append((whole[:rng.randrange(len(whole))], {"Content-Encoding": "zstd"} if zstd else None))
    out.append((b"\x28\xb5\x2f\xfd" + rng.randbytes(50), {"Content-Encoding": "zstd"}))
    # A frame that declares a terabyte.
    out.append((b"\x28\xb5\x2f\xfd\xc0\x58" + struct.pack("<Q", 1 << 40) + rng.randbytes(20),
                {"Content-Encoding": "zstd"}))
    out.append((rng.randbytes(900000), None))
    return out


def random_body(rng):
    """Fields that a Table has, with whatever in them."""
    body = field(1, rng.choice(["t", "u", "none", "sqlite_schema", "__marmot__head", "T\"; DROP TABLE t;--"]))
    for name in rng.choice([["id", "v"], ["k", "v"], ["id"], ["x"] * 3, ["id", "v", "more"]]):
        body += field(2, name)
    body += field(3, bytes(rng.randrange(4) for _ in range(rng.randrange(3))))
    body += field(4, bytes(rng.randrange(8) for _ in range(rng.randrange(6))))
    for number in (5, 6, 7, 9, 10):
        if rng.random() < 0.8:
            body += field(number, rng.randbytes(rng.randrange(30)))
    body += field(8, struct.pack("<3d", rng.random(), float("nan"), float("inf"))[:rng.randrange(25)])
    return field(1, body)


def protobuf(rng):
    out = []
    for _ in range(ROUND * 2):
        stranger = rng.getrandbits(62)
        out.append(message(stranger, rng.getrandbits(62), 1, rng.randbytes(16), b"", random_body(rng)))
        out.append(message(stranger, 5, rng.choice([1, 2, 1 << 62]), rng.randbytes(rng.randrange(20)),
                           rng.randbytes(rng.randrange(20)), rng.randbytes(40), rng.choice([14, 15, 16, 17])))
        part = field(1, rng.randrange(4)) + field(2, rng.randrange(5)) + field(3, rng.randbytes(32))
        out.append(message(stranger, 6, 1, rng.randbytes(16), b"", part + field(4, rng.randbytes(100)), PART))
    return [(m, None) for m in out]


def altered(rng, real):
    """Of messages that counted: again, of other epochs, with a hole, of another lineage."""
    out = []
    for data, zstd in real[1:]:
        out.append((data, {"Content-Encoding": "zstd"} if zstd else None))
        if zstd:
            continue
        fields = split(data)
        for number, value in ((2, 0), (2, 2), (2, 1 << 40), (5, 10 ** 6), (5, 0)):
            out.append((join([(n, k, value if n == number else v) for n, k, v in fields]), None))
        last = max(v for n, k, v in fields if n == 5)
        other = [(n, k, last + 1 if n == 5 else rng.randbytes(16) if n in (6, 7) else v) for n, k, v in fields]
        out.append((join(other), None))
    out.append((real[0][0], {"Content-Encoding": "zstd"} if real[0][1] else None))
    return out


def ignored(node):
    shard = node.status()["shards"][0]
    return shard["ignored"] + shard["duplicates"]


def thrown(case, raw, nodes, messages):
    """Publishes all of them between writes of the nodes."""
    before = [ignored(n) for n in nodes]
    position = raw.stream(STREAM)[1]["last_seq"]
    for k, (data, headers) in enumerate(messages):
        raw.publish(SUBJECT, data, headers)
        if k % 40 == 0:
            nodes[k % len(nodes)].sql("INSERT INTO t(id, v) VALUES (abs(random()), ?)", "beside " + case)
    wait_until(lambda: raw.stream(STREAM)[1]["last_seq"] >= position + len(messages), 20, "all are stored")
    for n in nodes:
        n.sql("INSERT INTO t(id, v) VALUES (abs(random()), ?)", "after " + case)
    for n in nodes:
        if not check("%s: %s goes on" % (case, n.name), n.sync(20000) == 1, n.status()):
            return
    everywhere(nodes)
    wait_until(lambda: len({ignored(n) - b for n, b in zip(nodes, before)}) == 1, 10, "all ignored as many")
    counted = ignored(nodes[0]) - before[0]
    note("%s: %d messages, %d ignored" % (case, len(messages), counted))
    check("%s: ignored by all alike, and counted" % case, counted > 0, counted)


def stranger(raw, nodes):
    """Node 77 is a program that knows the contract and nothing else."""
    previous = b""
    for k in range(1, 6):
        txid = bytes([k]) * 16
        raw.stored(STREAM, message(77, 78, k, txid, previous, insert("t", ["id", "v"], [0], [-k, "by hand %d" % k])),
                   SUBJECT)
        previous = txid
    for n in nodes:
        wait_until(lambda n=n: n.one("SELECT count(*) FROM t WHERE id < 0") == 5, 10, "rows by hand at " + n.name)
    check("a message by hand that keeps to the contract counts",
          all(n.one("SELECT v FROM t WHERE id = -5") == "by hand 5" for n in nodes), "it does not")


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = [Node(ws, name, urls=nats.url, schema=SCHEMA) for name in "abc"]
        for n in nodes:
            n.sync()
            n.sql("INSERT INTO t(id, v) VALUES (abs(random()), ?)", "first")
            n.many("INSERT INTO u VALUES (?, ?)", [["%s %d" % (n.name, k), "text " * 20] for k in range(30)])
            n.sql("UPDATE u SET v = 'other' WHERE k LIKE '%5'")
        for n in nodes:
            n.sync()
        with RawNats(nats.port) as raw:
            real = real_messages(raw)
            thrown("noise", raw, nodes, noise(rng, real))
            thrown("protobuf", raw, nodes, protobuf(rng))
            thrown("altered", raw, nodes, altered(rng, real))
            stranger(raw, nodes)
        # One that reads it all from its stored state, and one that was never there.
        nodes[2].restart()
        late = Node(ws, "late", urls=nats.url, schema=SCHEMA)
        check("a restarted one and a newcomer read through all of it", nodes[2].sync(20000) == 1
              and late.sync(20000) == 1, late.status())
        nodes.append(late)
        everywhere(nodes)
        reasons = {tuple(peek(n.db, "SELECT seq, reason FROM __marmot__ignored ORDER BY seq")) for n in nodes}
        check("all ignored the same places for the same reasons", len(reasons) == 1, [len(r) for r in reasons])
        for n in nodes:
            n.quit()
        everywhere(nodes)
    finish()


main()
