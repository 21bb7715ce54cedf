"""How concurrent changes of one column meet by marmot_policy: counters that add
up over a partition, largest and smallest values, rules that change while
changes are on their way, nodes that come later; after each all are equal.
marmot-test: parallel limit=180
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = """
CREATE TABLE account(id INTEGER PRIMARY KEY, n, r REAL, hi, lo, note);
CREATE TABLE flight(id INTEGER PRIMARY KEY, n);
"""
LATE = "CREATE TABLE late(id INTEGER PRIMARY KEY, n); INSERT INTO late VALUES (1, 100), (2, 100);"
RULES = {"n": "delta", "r": "delta", "hi": "max", "lo": "min"}
INT64_MAX = 2**63 - 1


def settle(nodes):
    """All that is written anywhere is folded everywhere."""
    for node in nodes + nodes:
        if node.sync(30000) != 1:
            raise Timeout("%s did not sync: %s" % (node.name, node.status()))
    wait_equal(nodes)


def row(node, key, table="account"):
    return node.sql("SELECT * FROM %s WHERE id = ?" % table, key)[0]


def rules_arrive(a, others):
    for column, rule in RULES.items():
        a.one("SELECT marmot_policy('account', ?, ?)", column, rule)
    settle([a] + others)


def partition(nats, nodes, rng):
    """Each node changes the same rows alone, several times."""
    nodes[0].sql("INSERT INTO account VALUES (1, 100, 0.5, 10, 10, 'start'), (2, ?, 0, 'b', NULL, NULL), "
                 "(3, 'text', NULL, NULL, NULL, NULL)", INT64_MAX - 5)
    settle(nodes)
    nats.stop()
    total, real, highs, lows = 100, 0.5, [10], [10]
    for node in nodes:
        here, here_real, here_highs, here_lows = total, real, [10], [10]
        mine, mine_real = 0, 0.0
        for _ in range(rng.randrange(3, 8)):
            step, hi, lo = rng.randrange(-50, 200), rng.randrange(-5, 500), rng.randrange(-500, 15)
            quarter = rng.randrange(-40, 40) / 4
            node.sql("UPDATE account SET n = n + ?, r = r + ?, hi = max(hi, ?), lo = min(lo, ?), note = ? WHERE id = 1",
                     step, quarter, hi, lo, node.name)
            mine, mine_real = mine + step, mine_real + quarter
            here_highs.append(hi)
            here_lows.append(lo)
        seen = row(node, 1)
        check("%s sees its own changes at once" % node.name, seen[1] == 100 + mine and seen[2] == 0.5 + mine_real and
              seen[3] == max(here_highs) and seen[4] == min(here_lows), "%r, here %r" % (seen, (mine, mine_real)))
        total, real = here + mine, here_real + mine_real
        highs += here_highs
        lows += here_lows
        node.sql("UPDATE account SET n = n + 3, hi = ?, lo = ? WHERE id = 2", {"a": "c", "b": b"\0", "c": 7}[node.name],
                 {"a": 5, "b": None, "c": "x"}[node.name])
    nodes[0].sql("UPDATE account SET n = 1 WHERE id = 3")
    nats.start()
    settle(nodes)
    got = row(nodes[2], 1)
    check("integers add up over a partition", got[1] == total, "%r, not %d" % (got, total))
    check("reals add up over a partition", got[2] == real, "%r, not %r" % (got, real))
    check("the largest and the smallest stay", got[3:5] == (max(highs), min(lows)), "%r, not %r" %
          (got, (max(highs), min(lows))))
    check("a column without a rule goes to one of them", got[5] in ("a", "b", "c"), got)
    got = row(nodes[1], 2)
    check("sums stop at the largest integer", got[1] == INT64_MAX, got)
    check("values of several types order as SQLite orders them, NULL is ignored", got[3:5] == (b"\0", 5), got)
    check("what is no number goes as without a rule", row(nodes[2], 3)[1] == 1, row(nodes[2], 3))
    clashes = nodes[0].sql("SELECT DISTINCT key FROM marmot_conflicts ORDER BY 1")
    check("only the column without a rule is a conflict", clashes == [('{"id":1}',)], clashes)


def concurrent(nodes, rng):
    """All at once, connected: nobody waits for anybody."""
    start = row(nodes[0], 1)[1]
    added = 0
    for _ in range(60):
        steps = [rng.randrange(1, 1000) for _ in nodes]
        for node, step in zip(nodes, steps):
            node.send_sql("UPDATE account SET n = n + ? WHERE id = 1", step)
        for node in nodes:
            node.receive()
        added += sum(steps)
    settle(nodes)
    got = row(nodes[1], 1)[1]
    check("180 concurrent additions are all there", got == start + added, "%r, not %d" % (got, start + added))


def in_flight(nats, nodes, rng):
    """The rule comes while changes of the column are on their way, and waiting."""
    nodes[0].sql("INSERT INTO flight SELECT value, 0 FROM json_each('[1,2,3,4]')")
    settle(nodes)
    for k in range(60):
        for node in nodes:
            node.send_sql("UPDATE flight SET n = n + 1 WHERE id = ?", rng.randrange(1, 5))
        for node in nodes:
            node.receive()
        if k in (20, 40):
            nodes[k // 20 - 1].one("SELECT marmot_policy('flight', 'n', ?)", "delta" if k == 40 else "max")
    settle(nodes)
    ok("all are equal after two rules came in between")
    before = {r[0]: r[1] for r in nodes[0].sql("SELECT id, n FROM flight")}
    nats.stop()
    nodes[0].sql("UPDATE flight SET n = n + 1000")
    nodes[1].sql("UPDATE flight SET n = n + 30")
    nodes[1].one("SELECT marmot_policy('flight', 'n', 'max')")
    nodes[1].sql("UPDATE flight SET n = n + 5 WHERE id = 1")
    nodes[2].sql("UPDATE flight SET n = n + 200")
    nodes[2].one("SELECT marmot_policy('flight', 'n', 'last')")
    nodes[2].sql("UPDATE flight SET n = n + 7 WHERE id = 2")
    nats.start()
    settle(nodes)
    after = {r[0]: r[1] for r in nodes[2].sql("SELECT id, n FROM flight")}
    ok("all are equal after rules that waited with changes before and behind them")
    check("and what was written lies behind them", all(after[k] > before[k] for k in before), "%r %r" % (before, after))
    nodes[0].one("SELECT marmot_policy('flight', 'n', 'delta')")
    settle(nodes)


def restarts_and_latecomers(ws, nats, nodes):
    nodes[1].restart()
    settle(nodes)
    late = Node(ws, "late", urls=nats.url, schema=SCHEMA)
    settle(nodes + [late])
    want = nodes[0].sql("SELECT name, col, policy FROM __marmot__policy ORDER BY 1, 2")
    for node in (nodes[1], late):
        got = node.sql("SELECT name, col, policy FROM __marmot__policy ORDER BY 1, 2")
        check("%s knows every rule" % node.name, got == want and len(got) == 5, "%r, not %r" % (got, want))
    start = row(late, 1)[1]
    nats.stop()
    late.sql("UPDATE account SET n = n + 1 WHERE id = 1")
    nodes[1].sql("UPDATE account SET n = n + 10 WHERE id = 1")
    nats.start()
    settle(nodes + [late])
    check("a latecomer and a restarted node add up", row(nodes[0], 1)[1] == start + 11, row(nodes[0], 1))
    nodes[0].one("SELECT marmot_policy('account', 'n', 'last')")
    settle(nodes + [late])
    nats.stop()
    late.sql("UPDATE account SET n = 1 WHERE id = 1")
    nodes[1].sql("UPDATE account SET n = 2 WHERE id = 1")
    nats.start()
    settle(nodes + [late])
    check("'last' takes the rule back", row(nodes[0], 1)[1] in (1, 2), row(nodes[0], 1))


def late_tables(ws):
    """A table that a node watches later is read from the log by the rules of each place."""
    nats = NatsServer(ws).start()
    schema = LATE + "CREATE TABLE t(id INTEGER PRIMARY KEY);"
    x, y, z = nodes = [Node(ws, name, urls=nats.url, schema=schema, watch=False) for name in "xyz"]
    for node in nodes:
        node.one("SELECT marmot_watch('t')")
        node.wait_state("live")
    for node in (x, y):
        node.one("SELECT marmot_watch('late')")
    settle([x, y])
    for rule in ("delta", "max", "last", "delta"):
        x.one("SELECT marmot_policy('late', 'n', ?)", rule)
        settle([x, y])
        nats.stop()
        for k, node in enumerate((x, y)):
            node.sql("UPDATE late SET n = n + ? WHERE id = 1", 3 + k)
            node.sql("UPDATE late SET n = n - ? WHERE id = 2", 5 + k)
        nats.start()
        settle([x, y])
    common = {r[0][1]: r[1][1] for r in dump(x.db)["late"][1]}
    check("the rules of the time are in the rows", common[1] >= 100 + 7 + 4 + 3 + 7, common)
    check("a node that does not watch it keeps its own", z.sql("SELECT n FROM late") == [(100,), (100,)], z.sql("SELECT * FROM late"))
    z.sql("INSERT INTO late VALUES (3, 1)")
    z.sql("DELETE FROM late WHERE id = 3")
    z.one("SELECT marmot_watch('late')")
    wait_until(lambda: z.one("SELECT state FROM marmot_tables WHERE name = 'late'") == "watched", 20, "late is watched")
    settle(nodes)
    check("who watches it later comes to the same", {r[0][1]: r[1][1] for r in dump(z.db)["late"][1]} == common, dump(z.db)["late"])
    nats.stop()
    for node in nodes:
        node.sql("UPDATE late SET n = n + 1 WHERE id = 1")
    nats.start()
    settle(nodes)
    check("and adds up with the others", z.one("SELECT n FROM late WHERE id = 1") == common[1] + 3, z.sql("SELECT * FROM late"))


def main():
    rng = seeded()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        nodes = [Node(ws, "a", urls=nats.url, schema=SCHEMA)]
        nodes += [Node(ws, name, urls=nats.url, schema=SCHEMA) for name in ("b", "c")]
        rules_arrive(nodes[0], nodes[1:])
        partition(nats, nodes, rng)
        concurrent(nodes, rng)
        in_flight(nats, nodes, rng)
        restarts_and_latecomers(ws, nats, nodes)
    with Workspace() as ws:
        late_tables(ws)
    finish()


main()
