"""What the nodes of the mixed storm write, and what each knows of it.

    writes = Writes(rng, name, number, plan)
    writes.step(o)                          # one transaction on o.node, at random
    writes.shell(o)                         # one of a program that has not loaded the extension
    said = judge([o.writes for o in ones], common)   # what the equal content is to hold; "" when it does

Rows of `own`, `many` and `loose` are written by one node alone and their keys are never used
again: what was reported as committed is there (or gone), once. `cnt` adds up: each `own` row
says what its transaction added. What several nodes write meets in `shared` and in the tables
of the other storm, which have to be equal in the end and, the two with money, to keep their sum.
"""
import sqlite3

import mix_schema
from marmot_test import SLOW, SqlError
from mix_schema import some
from storm_load import EXPECTED, FOUNDING, SCHEMA, TOTAL, Load

# own.d: what was added to cnt; 0 where nothing was.
OWN_TABLES = """
CREATE TABLE own(id INTEGER PRIMARY KEY, node TEXT, k INTEGER, d INTEGER, u UNIQUE);
CREATE TABLE many(id INTEGER PRIMARY KEY, node TEXT, v);
CREATE TABLE cnt(k INTEGER PRIMARY KEY, n INTEGER NOT NULL DEFAULT 0, hi INTEGER);
CREATE TABLE loose(v, w);
CREATE TABLE shared(k TEXT PRIMARY KEY COLLATE NOCASE, v, w UNIQUE) WITHOUT ROWID;
CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
"""
SCHEMAS = OWN_TABLES + mix_schema.SCHEMA + SCHEMA
FOUNDERS = FOUNDING + "INSERT INTO cnt(k, n) VALUES (0, 0), (1, 0), (2, 0);"
MONEY = "SELECT (SELECT sum(balance) FROM account) + (SELECT sum(balance) FROM vault)"
POLICIES = [("cnt", "n", "delta"), ("cnt", "hi", "max"), ("account", "balance", "delta"), ("vault", "balance", "delta")]
FILL = ("INSERT INTO many WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < ?3) "
        "SELECT ?1 * 1000 + i, ?2, %s FROM c")
SHARED = ["INSERT OR REPLACE INTO shared VALUES (?1, ?2, ?3)",
          "UPDATE OR REPLACE shared SET w = ?3 WHERE k = ?1 AND ?2 = ?2",
          "UPDATE shared SET v = ?2 WHERE k > ?1 AND ?3 = ?3",
          "DELETE FROM shared WHERE k = ?1 AND ?2 = ?2 AND ?3 = ?3"]


class Writes:
    def __init__(self, rng, name, number, plan):
        self.rng, self.name, self.plan = rng, name, plan
        self.last = number * 1000000
        self.load = Load(rng, plan["shards"], False)
        self.own, self.maybe = {}, {}       # id -> (k, d): committed; a kill came between
        self.there, self.gone = set(), set()  # (table, key)
        self.never = set()                  # own rows that were given up
        self.told = {}                      # ids that SQLite made
        self.ids = True                     # it may be asked for some
        self.committed = 0
        self.steps = [self.count] * 4 + [self.many, self.many, self.loose, self.loose, self.shared, self.auto,
                                         self.transfer, self.transfer] + [self.others] * 3
        self.tables = mix_schema.Tables(self, plan["schema"])
        self.steps += [self.tables.tend] * 5 if plan["acts"] else []

    def fresh(self):
        self.last += 1
        return self.last

    def step(self, o):
        self.rng.choice(self.steps)(o)

    def commit(self, o, steps, sure, maybe=None):
        """What `sure` notes holds when the COMMIT was reported; a kill beside it leaves it open."""
        o.node.send_txn(steps)
        if self.rng.random() < 0.01:
            o.kill_soon()
            if maybe:
                maybe()
            return
        try:
            o.node.receive()
        except SqlError as e:
            if not any(word in str(e) for word in EXPECTED):
                raise
            return
        self.committed += 1
        sure()

    def count(self, o):
        rng = self.rng
        x, k, d = self.fresh(), rng.randrange(3), rng.choice([1, 2, 5, -3])
        steps = [("INSERT INTO own VALUES (?, ?, ?, ?, ?)", (x, self.name, k, d, "u%d" % x)),
                 ("UPDATE cnt SET n = n + ?, hi = max(coalesce(hi, 0), ?) WHERE k = ?", (d, x % 1000000, k)),
                 ("INSERT INTO loose VALUES (?, ?)", (x, "w" * rng.choice([1, 10, 3000])))]
        if rng.random() < 0.1:  # large: in parts, or whole
            value = rng.choice(["zeroblob(1000)", "randomblob(1000)", "i"])
            steps.append((FILL % value, (x, self.name, rng.choice([3, 100, 400]))))

        def sure():
            self.own[x] = (k, d)

        def maybe():
            self.maybe[x] = (k, d)
        self.commit(o, steps, sure, maybe)

    def many(self, o):
        rng = self.rng
        keys = [k for k, in o.node.sql("SELECT id FROM many WHERE node = ? ORDER BY id LIMIT 400", self.name)]
        if keys and rng.random() < 0.6:
            some = {("many", k) for k in rng.sample(keys, min(len(keys), rng.choice([1, 5, 200])))}
            self.there -= some
            self.commit(o, [("DELETE FROM many WHERE id = ?", (k,)) for _, k in some], lambda: self.gone.update(some))
        else:
            x = self.fresh()
            self.commit(o, [("INSERT INTO many VALUES (?, ?, ?)", (x, self.name, rng.randrange(9)))],
                        lambda: self.there.add(("many", x)))

    def loose(self, o):
        marks = o.node.sql("SELECT v FROM loose WHERE typeof(v) = 'text' AND w = ? LIMIT 5", self.name)
        if marks and self.rng.random() < 0.5:
            v = self.rng.choice(marks)[0]
            self.there.discard(("loose", v))
            self.commit(o, [("DELETE FROM loose WHERE v = ?", (v,))], lambda: self.gone.add(("loose", v)))
        else:
            v = "v%d" % self.fresh()
            self.commit(o, [("INSERT INTO loose VALUES (?, ?)", (v, self.name))], lambda: self.there.add(("loose", v)))

    def shared(self, o):
        rng = self.rng
        values = (rng.choice("abcdABCD"), rng.choice([1, 2.5, "x", None, b"zz"]), rng.randrange(6))
        self.commit(o, [(rng.choice(SHARED), values)], lambda: None)

    def auto(self, o):
        """Without 'partition' ids meet, and the later row stays: nothing to know then."""
        if self.plan["autoincrement"] == "partition" and self.ids:
            x = "a%d" % self.fresh()
            self.told[o.node.one("INSERT INTO auto(v) VALUES (?) RETURNING id", x)] = x

    def transfer(self, o):
        self.commit(o, self.load.transfer(), lambda: None)
        self.look(o)

    def look(self, o):
        total = o.node.one(MONEY)
        if total != TOTAL:
            raise ValueError("%s holds %s of %d: half a transaction" % (self.name, total, TOTAL))

    def others(self, o):
        for error in o.node.each(self.load.transaction()):
            if not any(word in error for word in EXPECTED):
                raise SqlError(error)

    def shell(self, o, count=True):
        x, k = self.fresh(), self.rng.randrange(3)
        d = 7 if count else 0
        db = sqlite3.connect(o.node.db, timeout=20 * SLOW, isolation_level=None)
        try:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO own VALUES (?, ?, ?, ?, ?)", (x, self.name, k, d, "u%d" % x))
            db.execute("INSERT INTO loose VALUES (?, 'shell')", (x,))
            if d:
                db.execute("UPDATE cnt SET n = n + ? WHERE k = ?", (d, k))
            db.execute("COMMIT")
            self.own[x] = (k, d)
        finally:
            db.close()


def counters(writes, common):
    rows = {r[0][1]: (r[2][1], r[3][1]) for r in common["own"][1]}
    for k in range(3):
        want = sum(d for kk, d in rows.values() if kk == k)
        got = [(r[1][1], r[2][1]) for r in common["cnt"][1] if r[0][1] == k]
        # Those that a shell wrote did not move hi.
        highest = max([x % 1000000 for x, (kk, d) in rows.items() if kk == k and d not in (0, 7)], default="")
        if got != [(want, highest)]:
            yield "cnt %d" % k, "is %s, should be %s" % (got, (want, highest))


def judge(writes, common):
    def union(name):
        return set().union(*[getattr(w, name) for w in writes])

    own = {r[0][1] for r in common["own"][1]}
    marks = [r[0][1] for r in common["loose"][1]]
    present = {("loose", v) for v in marks} | {("many", r[0][1]) for r in common["many"][1]}
    auto = {r[0][1]: r[1][1] for r in common["auto"][1]}
    balances = [sum(r[1][1] for r in common[t][1]) for t in ("account", "vault")]
    found = [("rows of own that are lost", some(union("own") - own)),
             ("rows of own that nobody wrote", some(own - union("own") - union("maybe"))),
             ("rows of own that were given up", some(own & union("never"))),
             ("rows that are lost", some(union("there") - present)),
             ("rows that are back", some(union("gone") & present)),
             ("halves that are lost", some(own - set(marks))),
             ("rows that are there twice", some({v for v in marks if marks.count(v) > 1})),
             ("ids that name another row", some([i for w in writes for i, x in w.told.items() if auto.get(i) != x])),
             ("tables that change", mix_schema.judge([w.tables for w in writes], common)),
             ("money", "" if sum(balances) == TOTAL else "%s of %d" % (balances, TOTAL))]
    return "; ".join("%s: %s" % f for f in found + list(counters(writes, common)) if f[1])
