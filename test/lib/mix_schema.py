"""Schemas that change while the mixed storm blows, and what is written to those tables.

    schema = Schema(rng, acts, keyless)  # one a storm: what its nodes agree on
    schema.look(storm)             # by the storm, again and again: a change begins, or is everywhere
    tables = Tables(writes, schema)  # one a node
    tables.tend(o)                 # one transaction on one of these tables
    tables.act(o)                  # one of the acts, at random
    tables.catch_up(o)             # all that is to be done at this node
    said = judge([o.writes.tables for o in ones], common)

README: schema changes are not replicated, each node makes them itself. Acts:
  grow   ADD COLUMN to a table with a key: each node in its own time, while all write it
  heap   ADD COLUMN to one without: rows are added meanwhile, changed when all have the column
  turn   RENAME, DROP and ADD COLUMN: nobody writes the table from where all are in sync until all have it
  fresh  DROP TABLE, and made anew behind marmot_sync(): one node at a time, its rows come back
  leave  marmot_unwatch, and marmot_watch again: as `join` says, or emptied before
  later  CREATE TABLE and marmot_watch, with rows at once: each node in its own time
Each row is written by one node alone and its key is never used again: what was reported as committed
is there, as it was written last.
"""
import threading
import time

from marmot_test import SqlError, wait_until

ACTS = ["grow", "heap", "turn", "fresh", "leave", "later"]
SCHEMA = """
CREATE TABLE grown(id INTEGER PRIMARY KEY, v);
CREATE TABLE heap(k, v);
CREATE TABLE turned(id INTEGER PRIMARY KEY, v, x, z DEFAULT 5);
CREATE TABLE fresh(id INTEGER PRIMARY KEY, v, u UNIQUE);
CREATE TABLE aside(id INTEGER PRIMARY KEY, v);
"""
FRESH = SCHEMA.strip().splitlines()[3]
# By the columns a table has one sees how far it is.
STEPS = {
    "grown": [("id", "v"), "ALTER TABLE grown ADD COLUMN x", "ALTER TABLE grown ADD COLUMN y INTEGER DEFAULT 7",
              "ALTER TABLE grown ADD COLUMN z TEXT NOT NULL DEFAULT ''"],
    "heap": [("k", "v"), "ALTER TABLE heap ADD COLUMN x DEFAULT 7",
             "ALTER TABLE heap ADD COLUMN y TEXT NOT NULL DEFAULT 'd'"],
    "turned": [("id", "v", "x", "z"), "ALTER TABLE turned RENAME COLUMN x TO y", "ALTER TABLE turned DROP COLUMN z",
               "ALTER TABLE turned ADD COLUMN w DEFAULT 3", "ALTER TABLE turned DROP COLUMN v"],
}
SHAPES = {"grown": [("id", "v"), ("id", "v", "x"), ("id", "v", "x", "y"), ("id", "v", "x", "y", "z")],
          "heap": [("k", "v"), ("k", "v", "x"), ("k", "v", "x", "y")],
          "turned": [("id", "v", "x", "z"), ("id", "v", "y", "z"), ("id", "v", "y"), ("id", "v", "y", "w"),
                     ("id", "y", "w")]}
DEFAULTS = {"grown": {"y": 7, "z": ""}, "heap": {"x": 7, "y": "d"}, "turned": {"z": 5, "w": 3}}
NAMES = {"grow": "grown", "heap": "heap", "turn": "turned", "fresh": "fresh", "leave": "aside"}
LATER = [("later0", "(id INTEGER PRIMARY KEY, v)"), ("later1", "(k, v)"),
         ("later2", "(id TEXT NOT NULL PRIMARY KEY, v, u UNIQUE) WITHOUT ROWID")]


def as_now(table, row, columns):
    """The row in the shape that the table has come to."""
    if table == "turned" and "y" in columns:
        row = dict({"y": row.get("x")}, **row)
    return {c: row.get(c, DEFAULTS.get(table, {}).get(c)) for c in columns[1:]}


class Schema:
    def __init__(self, rng, acts, keyless=True):
        self.rng, self.acts, self.closing = rng, acts, False
        self.later = [x for x in LATER if keyless or not x[1].startswith("(k,")]
        self.rounds = []
        self.goal = {t: 0 for t in STEPS}
        self.steady = {"heap": True, "turned": True}
        if "grow" in acts:
            self.goal["grown"] = len(STEPS["grown"]) - 1
        self.lock = threading.Lock()
        self.hurry = False  # somebody waits for a snapshot: README, none is taken where a table or column is missing
        self.away = None  # who has dropped `fresh`

    def tables(self):
        return [NAMES[a] for a in self.acts if a in NAMES] + [n for n, _ in self.later if "later" in self.acts]

    def take_away(self, o):
        with self.lock:
            if self.away is None:
                self.away = o
            return self.away is o

    def come_back(self, o):
        with self.lock:
            if self.away is o:
                self.away = None

    def everywhere(self, table, ones):
        return all(o.writes.tables.stage.get(table) == self.goal[table] for o in ones)

    def look(self, ones):
        for act in ("heap", "turn"):
            table = NAMES[act]
            if act not in self.acts:
                continue
            if self.steady[table]:
                if self.goal[table] < len(STEPS[table]) - 1 and self.rng.random() < 0.5:
                    self.steady[table] = False
                    for o in ones:  # behind what each is at
                        with o.turn:
                            pass
                    self.closing = act == "turn"
                    self.rounds = [set(), set()]
                    self.goal[table] += act == "heap"
            elif act == "turn" and self.closing:
                if self.in_sync(ones):
                    self.closing = False
                    self.goal[table] += 1
            elif self.everywhere(table, ones):
                self.steady[table] = True

    def in_sync(self, ones):
        """Nobody writes the table: first all have sent what they have, then each has all."""
        for done in self.rounds:
            for o in ones:
                with o.turn:
                    if o not in done and o.synced(3000):
                        done.add(o)
            if len(done) < len(ones):
                return False
        return True

    def finish(self, ones):
        """When all stand still and nothing waits: the rest of it, and what is to be written is open."""
        for act in {"heap", "turn"}.intersection(self.acts):
            self.steady[NAMES[act]] = self.everywhere(NAMES[act], ones)
        return all(self.steady.values())


class Tables:
    def __init__(self, writes, schema):
        self.writes, self.rng, self.schema = writes, writes.rng, schema
        self.stage = {}
        self.rows = {}      # (table, key) -> {column: value}: committed
        self.gone = set()   # deleted
        self.maybe = set()  # a kill came between
        self.never = set()  # given up
        self.mended, self.unmended, self.left = 0.0, False, False
        self.out = False  # `aside` is not watched
        self.behind = False  # the file was set back

    # What is written.

    def columns(self, o, table):
        return tuple(c for c, in o.node.sql("SELECT name FROM pragma_table_info(?) ORDER BY cid", table))

    def look_at(self, o, table):
        columns = self.columns(o, table)
        if table in SHAPES and columns:
            self.stage[table] = SHAPES[table].index(columns)
        return columns

    def tend(self, o):
        table = self.rng.choice(self.schema.tables())
        columns = self.look_at(o, table)
        if not columns:
            return
        ready = table not in self.schema.steady or (
            self.schema.steady[table] and self.stage[table] == self.schema.goal[table])
        if (table == "turned" and not ready) or (table == "aside" and self.left):
            return
        known = [k for t, k in self.rows if t == table]
        if ready and known and self.rng.random() < 0.5 and not (columns[0] == "k" and self.behind):
            self.change(o, table, columns, self.rng.choice(known))
        else:
            self.add(o, table, columns)

    def change(self, o, table, columns, key):
        where = " WHERE %s = ?" % columns[0]
        if not o.node.one("SELECT count(*) FROM %s%s" % (table, where), key):
            return  # a file that was set back, or a table made anew, may lack it yet
        row = self.rows.pop((table, key))
        self.maybe.add((table, key))
        if self.rng.random() < 0.3 and (table, self.writes.plan["join"]) != ("aside", "merge"):
            self.writes.commit(o, [("DELETE FROM %s%s" % (table, where), (key,))], lambda: self.gone.add((table, key)))
            return
        column = self.rng.choice(columns[1:])
        value = "%s%d" % (column, self.writes.fresh())
        self.writes.commit(o, [("UPDATE %s SET %s = ?%s" % (table, column, where), (value, key))],
                           lambda: self.noted(table, key, dict(row, **{column: value})))

    def noted(self, table, key, row):
        self.maybe.discard((table, key))
        self.rows[(table, key)] = row

    def add(self, o, table, columns, keep=True):
        key = self.writes.fresh()
        if columns[0] == "k" or table == "later2":
            key = "k%d" % key
        some = [c for c in columns[1:] if self.rng.random() < 0.7]
        row = {c: "%s%d" % (c, self.writes.fresh()) for c in some}
        text = "INSERT INTO %s(%s) VALUES (?%s)" % (table, ", ".join([columns[0]] + some), ", ?" * len(some))
        (self.maybe if keep else self.never).add((table, key))
        self.writes.commit(o, [(text, (key, *row.values()))],
                           lambda: self.noted(table, key, row) if keep else None)

    # What administrators do.

    def ddl(self, o, text, *args, whole=False):
        """Behind a copy that is brought in, however long that holds the lock. `whole`: what it reads stays so."""
        def done():
            try:
                o.node.txn([(text, args)]) if whole else o.node.sql(text, *args)
                return True
            except SqlError as e:
                if "already exists" in str(e) and text.startswith("CREATE"):
                    return True  # a copy that was brought in had it
                if "locked" not in str(e):
                    raise
                return False
        wait_until(done, 60, "%s at %s" % (text, o.name))
        if text.startswith(("CREATE", "ALTER", "DROP")):
            self.mend(o, 0)

    def mend(self, o, killed):
        """README, mode 'hook': DDL counts as not captured, until no table is left out of the comparison. What
        waits for a copy is left out; nothing is received meanwhile, so that it is not called all the time."""
        if o.plan["capture"] != "hook" or not any("not captured" in w for w in o.node.status()["warnings"]):
            return
        waits = o.node.one("SELECT count(*) FROM marmot_tables WHERE state IN ('stale', 'joining')")
        if (waits or self.unmended) and time.monotonic() - self.mended < 10:
            return
        self.mended = time.monotonic()
        found = o.call("reconcile", killed=killed)
        self.unmended = found is None
        if found and found["rows"]:
            raise ValueError("marmot_reconcile found %s" % [t for t in found["tables"] if t["rows"]])

    def act(self, o):
        if self.schema.hurry:
            return self.catch_up(o)
        self.mend(o, 0.25)
        return getattr(self, self.rng.choice(self.schema.acts))(o)

    def step_on(self, o, table):
        if self.look_at(o, table) and self.stage[table] < self.schema.goal[table]:
            self.ddl(o, STEPS[table][self.stage[table] + 1])
            self.look_at(o, table)
            o.count(table)
            return True
        return False

    def grow(self, o):
        self.step_on(o, "grown")

    def heap(self, o):
        self.step_on(o, "heap")

    def turn(self, o):
        self.step_on(o, "turned")

    def later(self, o):
        for name, shape in self.schema.later:
            if not self.columns(o, name):
                self.ddl(o, "CREATE TABLE IF NOT EXISTS %s%s" % (name, shape))
                self.ddl(o, "SELECT marmot_watch(?)", name)
                o.count("later")
                for _ in range(self.rng.randrange(3)):
                    self.add(o, name, self.columns(o, name))
                return True
        return False

    def state(self, o, table):
        return o.node.one("SELECT state FROM marmot_tables WHERE name = ?", table)

    def fresh(self, o):
        """README: marmot_sync() before, for what triggers have noted, and between, or it is taken for an altered one."""
        if not self.columns(o, "fresh"):
            if o.synced(5000):
                self.ddl(o, FRESH)
                for _ in range(self.rng.randrange(3)):
                    self.add(o, "fresh", self.columns(o, "fresh"))
        elif self.state(o, "fresh") != "watched":
            return
        elif self.schema.away is o:
            self.schema.come_back(o)
        elif o.synced(3000) and self.schema.take_away(o):
            self.ddl(o, "DROP TABLE fresh")
            o.count("fresh")
            if self.rng.random() < 0.3:
                o.kill("DROP TABLE")
                o.start()

    def leave(self, o):
        """What is written meanwhile goes with 'adopt', and with those who empty the table."""
        if self.state(o, "aside") != "watched":
            return
        join = o.node.config.get("join", "strict")
        # README: what is captured while it is no part of the cluster is not sent. A copy may make it wait just now.
        self.ddl(o, "SELECT marmot_unwatch('aside') WHERE 'watched' = "
                    "(SELECT state FROM marmot_tables WHERE name = 'aside')", whole=True)
        if self.state(o, "aside") != "unwatched":
            return
        self.out = True
        o.count("leave")
        for _ in range(self.rng.randrange(4)):
            if self.out:  # who was killed has called marmot_watch_all() since
                self.add(o, "aside", self.columns(o, "aside"), keep=join == "merge")
        if self.rng.random() < 0.5:
            self.left = True
            o.steps(2)
            self.left = False
        if self.rng.random() < 0.2:
            o.kill("marmot_unwatch")
            o.start()
        if join == "strict":
            self.ddl(o, "SELECT marmot_unwatch('aside')")  # who was killed has called marmot_watch_all() since
            self.ddl(o, "DELETE FROM aside")
        self.ddl(o, "SELECT marmot_watch('aside')")

    def catch_up(self, o):
        if not self.columns(o, "own"):
            return  # an empty one that has not joined
        self.mend(o, 0)
        for act, table in (("grow", "grown"), ("heap", "heap"), ("turn", "turned")):
            while act in self.schema.acts and self.step_on(o, table):
                pass
        while "later" in self.schema.acts and self.later(o):
            pass
        if "fresh" in self.schema.acts and not self.columns(o, "fresh"):
            self.fresh(o)
        keyless = [t for t in self.schema.tables() if self.columns(o, t)[:1] == ("k",)]
        self.behind = self.behind and not all(self.state(o, t) == "watched" for t in keyless)


def some(items):
    return "%d, as %s" % (len(items), sorted(items, key=str)[:5]) if items else ""


def judge(tables, common):
    rows = {k: as_now(k[0], row, common[k[0]][0]) for t in tables for k, row in t.rows.items()}
    gone, maybe, never = (set().union(*[getattr(t, n) for t in tables]) for n in ("gone", "maybe", "never"))
    have, twice = {}, []
    for table in tables[0].schema.tables():
        for r in common[table][1]:
            values = [v[1] if v[0] else None for v in r]
            key = (table, values[0])
            twice += [key] if key in have else []
            have[key] = dict(zip(common[table][0], values))
    wrong = [(k, row, have[k]) for k, row in rows.items() if k in have and not row.items() <= have[k].items()]
    found = [("lost", some(set(rows) - set(have))), ("back", some(gone & set(have))),
             ("given up and there", some(never & set(have))), ("there twice", some(twice)),
             ("that nobody wrote", some(set(have) - set(rows) - gone - maybe - never)),
             ("not as written", some(wrong))]
    return "; ".join("rows %s: %s" % f for f in found if f[1])
