"""What must hold after a storm: the promises, checked on the files and the statuses.

    problems = compare(hosts)    # a list of lines; empty when every promise holds
"""
import sqlite3

from cluster_hosts import peek
from marmot_test import Timeout, difference, dump, integrity, wait_until
from storm_load import REFUSABLE

CONFLICTS = ("SELECT shard, seq, kind, name, key, lost, won FROM __marmot__conflict WHERE kind <> 'foreign_key' "
             "ORDER BY 1, 2, 3, 4, 5, 6, 7")
ORIGINS = "SELECT shard, node, incarnation, seq, hex(txid) FROM __marmot__origin ORDER BY 1, 2, 3"
ACCEPTED = "SELECT shard, node, incarnation, seq, hex(txid) FROM __marmot__accepted ORDER BY 1, 2, 3, 4"
IGNORED = "SELECT shard, seq, reason FROM __marmot__ignored ORDER BY 1, 2"
POSITIONS = "SELECT shard, seq, hex(digest), epoch FROM __marmot__position ORDER BY 1"
PARTS = "SELECT shard, node, incarnation, number, hex(txid), length(data) FROM __marmot__part ORDER BY 1, 2, 3, 4"
# What a snapshot has too: equal on nodes that brought in a copy.
FOLDED = (("origins", ORIGINS), ("accepted", ACCEPTED), ("positions", POSITIONS), ("parts", PARTS))


def look(path, sql):
    db = sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=5)
    db.text_factory = lambda b: b.decode("utf-8", "surrogateescape")
    try:
        return db.execute(sql).fetchall()
    finally:
        db.close()


def unequal(name, hosts, sql):
    """Lines that say which host differs from the first, and how."""
    first = look(hosts[0].db, sql)
    out = []
    for h in hosts[1:]:
        rows = look(h.db, sql)
        if rows != first:
            left, right = sorted(set(first) - set(rows)), sorted(set(rows) - set(first))
            out.append("%s of %s (%d) and %s (%d): only left %s, only right %s" % (
                name, hosts[0].name, len(first), h.name, len(rows), str(left[:3])[:600], str(right[:3])[:600]))
    return out


def lost(hosts):
    """Noted transactions that some database lacks."""
    out = []
    for h in hosts:
        noted = h.noted()
        for other in hosts:
            have = {r[0] for r in peek(other.db, "SELECT n FROM counter WHERE node = ?", h.name)}
            missing = sorted(set(range(1, noted + 1)) - have)
            if missing:
                out.append("%s lacks %d of %d noted transactions of %s: %s" % (
                    other.name, len(missing), noted, h.name, missing[:8]))
    return out


def refused(status):
    return [t["name"] for t in status["tables"]
            if t["name"] in REFUSABLE and t["state"] == "unsupported" and t["why"]]


def states(hosts):
    out = []
    for h in hosts:
        s = h.ask("status")
        if s["state"] != "live" or s["outbox"]["rows"]:
            out.append("%s is %s (%s), outbox %s" % (h.name, s["state"], s.get("why"), s["outbox"]))
        out += ["%s: table %s is %s (%s)" % (h.name, t["name"], t["state"], t.get("why"))
                for t in s["tables"] if t["state"] != "watched" and t["name"] not in refused(s)]
        out += ["%s: shard %s is %s at %s of %s" % (h.name, x["n"], x["state"], x["position"], x["end"])
                for x in s["shards"] if x["state"] != "current"]
    return out


def bookkeeping(hosts, of=(("conflicts", CONFLICTS), ("ignored", IGNORED)) + FOLDED):
    out = []
    for name, sql in of:
        out += unequal(name, hosts, sql)
    return out + states(hosts)


def compare(hosts):
    """Content at once, as marmot_sync promises; bookkeeping when the nodes have written it down: what only
    echoes changed waits for a second."""
    out = []
    own = refused(hosts[0].ask("status"))
    first, *others = [{t: rows for t, rows in dump(h.db).items() if t not in own} for h in hosts]
    for h, other in zip(hosts[1:], others):
        said = difference(first, other)
        if said:
            out.append("content of %s and %s: %s" % (hosts[0].name, h.name, said[:2000]))
    out += lost(hosts)
    try:
        wait_until(lambda: not bookkeeping(hosts), 5, "equal bookkeeping", every=0.3)
    except Timeout:
        out += bookkeeping(hosts)
    for h in hosts:
        said = integrity(h.db)
        if said != "ok":
            out.append("%s is damaged: %s" % (h.name, said[:300]))
    return out
