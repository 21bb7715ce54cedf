"""The random transactions of the storm: many shapes of tables, every kind of
value, every kind of write.

    load = Load(rng, shards, accounts)
    for sql, args in load.transaction(): ...   # without BEGIN and COMMIT

Keys come from small ranges, so that nodes meet on the same rows. SCHEMA is
the founding content; LATE is a table that comes in mid-run, on every node.
"""
ACCOUNTS = 12
BALANCE = 1000
WEIRD = '"we ird ""name"" \U0001F680"'
WIDE = 499

SCHEMA = """
CREATE TABLE counter(node TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY(node, n)) WITHOUT ROWID;
CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE vault(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL);
CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b, c);
CREATE TABLE edge(id INTEGER PRIMARY KEY, v, i INTEGER);
CREATE TABLE pair(a TEXT NOT NULL, b INTEGER NOT NULL, v, w, PRIMARY KEY(a, b));
CREATE TABLE folded(k TEXT COLLATE NOCASE NOT NULL PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE reals(r REAL NOT NULL PRIMARY KEY, v);
CREATE TABLE blobs(k BLOB NOT NULL PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE anykey(k NOT NULL PRIMARY KEY, v);
CREATE TABLE uniq(id INTEGER PRIMARY KEY, u UNIQUE, x, y, v, UNIQUE(x, y));
CREATE TABLE folk(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE UNIQUE, age INTEGER CHECK (age < 90));
CREATE TABLE part(id INTEGER PRIMARY KEY, x, y INTEGER);
CREATE UNIQUE INDEX part_x ON part(x) WHERE y > 0;
CREATE UNIQUE INDEX part_sum ON part(abs(y) + id %% 3) WHERE y < -6;
CREATE TABLE bag(a, b, c);
CREATE TABLE nullkey(a, b, v, PRIMARY KEY(a, b));
CREATE TABLE parent(id INTEGER PRIMARY KEY, name);
CREATE TABLE child(id INTEGER PRIMARY KEY, p REFERENCES parent(id) ON DELETE CASCADE ON UPDATE CASCADE, v);
CREATE TABLE grandchild(id INTEGER PRIMARY KEY, c REFERENCES child(id) ON DELETE SET NULL ON UPDATE CASCADE, v);
CREATE TABLE logged(id INTEGER PRIMARY KEY, v);
CREATE TABLE journal(id INTEGER PRIMARY KEY, what TEXT, row INTEGER, old, new);
CREATE TRIGGER logged_i AFTER INSERT ON logged BEGIN
    INSERT OR REPLACE INTO journal VALUES (abs(random()) %% 40, 'insert', NEW.id, NULL, NEW.v);
END;
CREATE TRIGGER logged_u AFTER UPDATE ON logged BEGIN
    INSERT INTO journal VALUES (abs(random()) %% 40, 'update', NEW.id, OLD.v, NEW.v)
        ON CONFLICT(id) DO UPDATE SET what = excluded.what, new = excluded.new;
END;
CREATE TRIGGER logged_d AFTER DELETE ON logged BEGIN
    DELETE FROM journal WHERE row = OLD.id;
END;
CREATE TABLE gen(id INTEGER PRIMARY KEY, thrice INTEGER AS (a * 3) STORED, a INTEGER, b TEXT,
    twice INTEGER AS (a * 2) VIRTUAL);
CREATE TABLE %s("or der" INTEGER PRIMARY KEY, "select", "quo""te" DEFAULT 'd', "\U0001F41F" UNIQUE);
CREATE TABLE wide(id INTEGER PRIMARY KEY, %s);
CREATE TABLE big(id INTEGER PRIMARY KEY, v);
CREATE INDEX plain_a ON plain(a);
""" % (WEIRD, ", ".join("c%d" % k for k in range(1, WIDE + 1)))

# Tables that a node may refuse to watch, always saying why: then each has its own.
REFUSABLE = ("bag", "nullkey", "part")

FOUNDING = "".join("INSERT INTO account VALUES (%d, %d);\nINSERT INTO vault VALUES (%d, %d);\n"
                   % (k, BALANCE, k, BALANCE) for k in range(ACCOUNTS))
TOTAL = 2 * ACCOUNTS * BALANCE

LATE = ["CREATE TABLE IF NOT EXISTS late(k TEXT NOT NULL, n INTEGER NOT NULL, v, u UNIQUE, PRIMARY KEY(n, k))",
        "CREATE INDEX IF NOT EXISTS late_v ON late(v)"]

# What the random writes meet in a healthy database.
EXPECTED = ("UNIQUE constraint failed", "CHECK constraint failed", "NOT NULL constraint failed",
            "FOREIGN KEY constraint failed", "database is locked", "datatype mismatch", "no such savepoint",
            "cannot store", "integer overflow")

EDGES = [9223372036854775807, -9223372036854775808, 9223372036854775806, -9223372036854775807, 2147483648, -2147483649,
         9007199254740993, 0, -1, 1]
REALS = [0.0, -0.0, 0.1, 1.0, -1.5, 1e308, 5e-324, 9007199254740992.0, 9.223372036854776e18, float("inf"),
         float("-inf")]
WORDS = ["a", "b", "A", "Bob", "bob", "BOB", "zoë", "ZOË", "", " ", "1", "1.0", "☃", "\U00010348", "'", '"', "key", "KEY"]
OR = ["", "", "", "OR REPLACE ", "OR IGNORE ", "OR FAIL ", "OR ROLLBACK ", "OR ABORT "]


class Load:
    def __init__(self, rng, shards, transfers):
        self.rng = rng
        self.one_shard = shards == 1
        self.transfers = transfers
        self.late = False
        self.shapes = [self.plain, self.plain, self.edge, self.pair, self.folded, self.reals, self.blobs, self.anykey,
                       self.uniq, self.uniq, self.folk, self.part, self.bag, self.nullkey, self.family, self.family,
                       self.logged, self.gen, self.weird, self.wide]

    def transaction(self):
        """Statements of one transaction, savepoints among them."""
        r = self.rng.random()
        if r < 0.02:
            return self.heavy()
        if self.transfers and r < 0.25:
            return self.transfer()
        steps = []
        for _ in range(self.rng.choice([1, 1, 2, 3, 5, 9])):
            s = self.rng.random()
            if s < 0.06:
                steps += [("SAVEPOINT s", ())] + self.some() + [("ROLLBACK TO s", ()), ("RELEASE s", ())]
            elif s < 0.1:
                steps += [("SAVEPOINT t", ())] + self.some() + [("RELEASE t", ())]
            else:
                steps += self.some()
        return steps

    def some(self):
        shape = self.late_rows if self.late and self.rng.random() < 0.15 else self.rng.choice(self.shapes)
        return shape()

    # Values: an expression and its argument.

    def value(self):
        rng = self.rng
        k = rng.randrange(12)
        if k == 0:
            return "?", None
        if k == 1:
            return "?", rng.choice(EDGES)
        if k == 2:
            return "?", rng.choice(REALS)
        if k == 3:
            return "?", rng.random() * 1e6
        if k == 4:
            return "?", rng.randbytes(rng.randrange(40))
        if k == 5:
            return "CAST(? AS TEXT)", rng.choice([b"a\0b", b"\0", b"\xff\x80", b"ok\xc3", b"a\0c", b"\xed\xa0\x80"])
        if k == 6:
            return "?", rng.choice(WORDS)
        if k == 7:
            return "?", "x" * rng.randrange(2000)
        return "?", rng.randrange(20)

    def row(self, *fixed, values=1):
        parts = [("?", v) for v in fixed] + [self.value() for _ in range(values)]
        return ", ".join(p[0] for p in parts), tuple(p[1] for p in parts)

    def verb(self):
        return "INSERT " + self.rng.choice(OR)

    def insert(self, table, *fixed, values=1, tail=""):
        marks, args = self.row(*fixed, values=values)
        return ["%sINTO %s VALUES (%s)%s" % (self.verb(), table, marks, tail), args]

    def set(self, table, column, where, *args):
        expression, arg = self.value()
        return ("UPDATE %s%s SET %s = %s WHERE %s" % (self.rng.choice(["", "", "OR REPLACE ", "OR IGNORE "]), table,
                                                     column, expression, where), (arg,) + args)

    # Shapes.

    def plain(self):
        rng, k = self.rng, self.rng.randrange(30)
        return [rng.choice([
            lambda: self.insert("plain", k, values=3),
            lambda: self.insert("plain", None, values=3),
            lambda: self.insert("plain", k, values=3, tail=" ON CONFLICT(id) DO UPDATE SET a = excluded.a"),
            lambda: self.set("plain", rng.choice("abc"), "id = ?", k),
            lambda: self.set("plain", rng.choice("abc"), "id BETWEEN ? AND ?", k, k + 4),
            lambda: ("DELETE FROM plain WHERE id = ?", (k,)),
            lambda: ("DELETE FROM plain WHERE id > ?", (k + 10,)),
            lambda: ("UPDATE OR REPLACE plain SET id = id + 1 WHERE id = ?", (k,)),
            lambda: ("UPDATE plain SET id = -id WHERE id BETWEEN ? AND ?", (k, k + 3)),
            lambda: ("UPDATE OR REPLACE plain SET id = abs(id) WHERE id < 0", ()),
        ])()]

    def edge(self):
        k = self.rng.choice(EDGES)
        return [self.rng.choice([
            lambda: ("%sINTO edge VALUES (?, ?, ?)" % self.verb(),
                     (k, self.rng.choice(REALS), self.rng.choice(EDGES))),
            lambda: ("UPDATE edge SET i = ? WHERE id = ?", (self.rng.choice(EDGES), k)),
            lambda: self.set("edge", "v", "id = ?", k),
            lambda: ("DELETE FROM edge WHERE id = ?", (k,)),
        ])()]

    def pair(self):
        rng = self.rng
        a, b = rng.choice(WORDS[:6]), rng.randrange(5)
        return [rng.choice([
            lambda: self.insert("pair", a, b, values=2),
            lambda: self.insert("pair", a, b, values=2, tail=" ON CONFLICT DO NOTHING"),
            lambda: self.set("pair", "v", "a = ?", a),
            lambda: self.set("pair", "w", "b = ?", b),
            lambda: ("UPDATE OR REPLACE pair SET b = b + 1 WHERE a = ?", (a,)),
            lambda: ("UPDATE OR IGNORE pair SET a = upper(a) WHERE b = ?", (b,)),
            lambda: ("DELETE FROM pair WHERE a = ? AND b < ?", (a, b)),
        ])()]

    def folded(self):
        k = self.rng.choice(WORDS)
        return [self.rng.choice([
            lambda: self.insert("folded", k),
            lambda: self.insert("folded", k, tail=" ON CONFLICT(k) DO UPDATE SET k = excluded.k, v = excluded.v"),
            lambda: ["INSERT OR REPLACE INTO folded VALUES (CAST(? AS TEXT), ?)",
                     (self.rng.choice([b"a\0x", b"A\0X", b"a\0y", b"\xff", b"\xe0"]), self.rng.randrange(9))],
            lambda: ("UPDATE OR REPLACE folded SET k = upper(k) WHERE k = ?", (k,)),
            lambda: self.set("folded", "v", "k = ?", k.swapcase()),
            lambda: ("DELETE FROM folded WHERE k = ?", (k.swapcase(),)),
        ])()]

    def reals(self):
        k = self.rng.choice(REALS + [1, 0, 2])
        return [self.rng.choice([
            lambda: self.insert("reals", k),
            lambda: self.set("reals", "v", "r = ?", k),
            lambda: ("UPDATE OR REPLACE reals SET r = r + 0.5 WHERE r = ?", (k,)),
            lambda: ("UPDATE OR REPLACE reals SET r = -r WHERE abs(r) < 2", ()),
            lambda: ("DELETE FROM reals WHERE r = ?", (k,)),
        ])()]

    def blobs(self):
        k = self.rng.choice([b"", b"\0", b"\0\0", b"a", b"\xff" * 20, b"ab"])
        return [self.rng.choice([
            lambda: self.insert("blobs", k),
            lambda: self.set("blobs", "v", "k = ?", k),
            lambda: ("UPDATE OR REPLACE blobs SET k = CAST(k || 'b' AS BLOB) WHERE k = ?", (k,)),
            lambda: ("DELETE FROM blobs WHERE k >= ?", (k,)),
        ])()]

    def anykey(self):
        k = self.rng.choice([1, 1.0, "1", b"1", 0, -0.0, "a", b"a", 1.5, 9223372036854775807, 9.223372036854775e18])
        return [self.rng.choice([
            lambda: self.insert("anykey", k),
            lambda: self.set("anykey", "v", "k = ?", k),
            lambda: ("UPDATE OR REPLACE anykey SET k = CAST(k AS TEXT) WHERE k = ?", (k,)),
            lambda: ("DELETE FROM anykey WHERE k = ?", (k,)),
        ])()]

    def uniq(self):
        rng = self.rng
        i, j = rng.randrange(12), rng.randrange(12)
        u, x, y = rng.choice([None, rng.randrange(10), "u"]), rng.randrange(3), rng.choice([None, 0, 1, 2])
        return rng.choice([
            lambda: [self.insert("uniq", i, u, x, y)],
            lambda: [("INSERT INTO uniq VALUES (?, ?, ?, ?, ?) ON CONFLICT(u) DO UPDATE SET v = excluded.v",
                      (i, u, x, y, j))],
            lambda: [("UPDATE OR REPLACE uniq SET u = ? WHERE id = ?", (u, i))],
            lambda: [("UPDATE OR REPLACE uniq SET x = ?, y = ? WHERE id = ?", (x, y, i))],
            lambda: [self.set("uniq", "v", "id = ?", i)],
            lambda: [("UPDATE OR REPLACE uniq SET id = id + 1 WHERE id = ?", (i,))],
            lambda: [("DELETE FROM uniq WHERE id = ?", (i,))],
            lambda: self.swap(i, j),
            lambda: self.shift(),
        ])()

    def swap(self, i, j):
        """Two rows exchange their UNIQUE values, by way of a third."""
        other = "swap %d" % self.rng.randrange(1 << 30)
        return [("CREATE TEMP TABLE IF NOT EXISTS held(id PRIMARY KEY, u)", ()),
                ("DELETE FROM held", ()),
                ("INSERT INTO held SELECT id, u FROM uniq WHERE id IN (?, ?)", (i, j)),
                ("UPDATE uniq SET u = ? WHERE id = ?", (other, i)),
                ("UPDATE uniq SET u = (SELECT u FROM held WHERE id = ?) WHERE id = ?", (i, j)),
                ("UPDATE OR REPLACE uniq SET u = (SELECT u FROM held WHERE id = ?) WHERE id = ?", (j, i))]

    def shift(self):
        """All keys move by one, in two steps as SQLite needs it."""
        return [("UPDATE uniq SET id = -id - 1", ()), ("UPDATE uniq SET id = -id WHERE id < 0", ()),
                ("DELETE FROM uniq WHERE id > 15", ())]

    def folk(self):
        k, name = self.rng.randrange(8), self.rng.choice(WORDS)
        return [self.rng.choice([
            lambda: ("%sINTO folk VALUES (?, ?, ?)" % self.verb(), (k, name, self.rng.randrange(100))),
            lambda: ("INSERT INTO folk VALUES (?, ?, 1) ON CONFLICT(name) DO UPDATE SET age = age + 1", (k, name)),
            lambda: ("UPDATE folk SET age = age + 30 WHERE id < ?", (k,)),
            lambda: ("UPDATE OR REPLACE folk SET name = ? WHERE id = ?", (name, k)),
            lambda: ("DELETE FROM folk WHERE name = ?", (name.swapcase(),)),
        ])()]

    def part(self):
        k, y = self.rng.randrange(10), self.rng.randrange(-12, 6)
        return [self.rng.choice([
            lambda: ("%sINTO part VALUES (?, ?, ?)" % self.verb(), (k, self.rng.randrange(5), y)),
            lambda: ("UPDATE OR REPLACE part SET y = ? WHERE id = ?", (y, k)),
            lambda: ("UPDATE OR REPLACE part SET y = -y WHERE x = ?", (k,)),
            lambda: ("DELETE FROM part WHERE id = ?", (k,)),
        ])()]

    def bag(self):
        k = self.rng.randrange(4)
        return [self.rng.choice([
            lambda: ("INSERT INTO bag VALUES (?, ?, 'same')", (k, self.rng.randrange(2))),
            lambda: self.insert("bag", k, values=2),
            lambda: self.set("bag", "c", "a = ?", k),
            lambda: ("UPDATE bag SET b = b + 1 WHERE a = ?", (k,)),
            lambda: ("DELETE FROM bag WHERE a = ? AND b > 1", (k,)),
            lambda: ("DELETE FROM bag WHERE rowid = (SELECT min(rowid) FROM bag WHERE a = ?)", (k,)),
            lambda: ("DELETE FROM bag WHERE rowid > 60", ()),
        ])()]

    def nullkey(self):
        a, b = self.rng.choice([None, 1, 2]), self.rng.choice([None, 1, "x"])
        return [self.rng.choice([
            lambda: self.insert("nullkey", a, b),
            lambda: self.set("nullkey", "v", "a IS ?", a),
            lambda: ("UPDATE OR REPLACE nullkey SET a = ? WHERE b IS ?", (a, b)),
            lambda: ("DELETE FROM nullkey WHERE b IS ?", (b,)),
        ])()]

    def family(self):
        p, c, g = (self.rng.randrange(n) for n in (6, 15, 20))
        return [self.rng.choice([
            lambda: self.insert("parent", p),
            lambda: ("%sINTO child VALUES (?, ?, ?)" % self.verb(), (c, p, g)),
            lambda: ("%sINTO grandchild VALUES (?, ?, ?)" % self.verb(), (g, c, p)),
            lambda: ("DELETE FROM parent WHERE id = ?", (p,)),
            lambda: ("UPDATE OR IGNORE parent SET id = id + 1 WHERE id = ?", (p,)),
            lambda: ("UPDATE OR IGNORE child SET id = id + 1, p = ? WHERE id = ?", (p, c)),
            lambda: ("DELETE FROM child WHERE id = ?", (c,)),
            lambda: self.set("grandchild", "v", "c = ?", c),
        ])()]

    def logged(self):
        k = self.rng.randrange(10)
        return [self.rng.choice([
            lambda: self.insert("logged", k),
            lambda: self.set("logged", "v", "id = ?", k),
            lambda: ("DELETE FROM logged WHERE id = ?", (k,)),
            lambda: ("UPDATE OR REPLACE logged SET id = id + 1 WHERE id < ?", (k,)),
        ])()]

    def gen(self):
        k, a = self.rng.randrange(10), self.rng.choice([self.rng.randrange(100), None, 4611686018427387904])
        return [self.rng.choice([
            lambda: ("%sINTO gen(id, a, b) VALUES (?, ?, ?)" % self.verb(), (k, a, "b%d" % k)),
            lambda: ("UPDATE gen SET a = ? WHERE id >= ?", (a, k)),
            lambda: ("UPDATE gen SET b = b || 'x' WHERE thrice % 2 = 0 AND length(b) < 20", ()),
            lambda: ("DELETE FROM gen WHERE twice > ?", (k * 20,)),
        ])()]

    def weird(self):
        k = self.rng.randrange(8)
        return [self.rng.choice([
            lambda: self.insert(WEIRD, k, values=3),
            lambda: ('%sINTO %s("or der", "\U0001F41F") VALUES (?, ?)' % (self.verb(), WEIRD), (k, k % 5)),
            lambda: self.set(WEIRD, '"select"', '"or der" = ?', k),
            lambda: self.set(WEIRD, '"quo""te"', '"or der" > ?', k),
            lambda: ('DELETE FROM %s WHERE "or der" = ?' % WEIRD, (k,)),
        ])()]

    def wide(self):
        k = self.rng.randrange(4)
        columns = sorted(self.rng.sample(range(1, WIDE + 1), self.rng.choice([1, 3, 40])))
        return [self.rng.choice([
            lambda: ("INSERT OR REPLACE INTO wide(id, %s) VALUES (?%s)" % (
                ", ".join("c%d" % c for c in columns), ", ?" * len(columns)), (k,) + tuple(columns)),
            lambda: ("UPDATE wide SET %s WHERE id = ?" % ", ".join("c%d = ?" % c for c in columns),
                     tuple(self.rng.randrange(9) for _ in columns) + (k,)),
            lambda: ("DELETE FROM wide WHERE id = ?", (k,)),
        ])()]

    def late_rows(self):
        k, n = self.rng.choice(WORDS), self.rng.randrange(6)
        return [self.rng.choice([
            lambda: self.insert("late", k, n, values=2),
            lambda: self.set("late", "v", "n = ?", n),
            lambda: ("UPDATE OR REPLACE late SET n = n + 1 WHERE k = ?", (k,)),
            lambda: ("DELETE FROM late WHERE n = ?", (n,)),
        ])()]

    def transfer(self):
        """Money moves between accounts: the sum of all balances is constant in every transaction."""
        rng = self.rng
        steps = []
        for _ in range(rng.randrange(1, 4)):
            amount = rng.randrange(1, 50)
            source, target = rng.sample(["account", "vault"], 2) if self.one_shard else [rng.choice(
                ["account", "vault"])] * 2
            a, b = rng.sample(range(ACCOUNTS), 2)
            steps += [("UPDATE %s SET balance = balance - ? WHERE id = ?" % source, (amount, a)),
                      ("UPDATE %s SET balance = balance + ? WHERE id = ?" % target, (amount, b))]
        return steps

    def heavy(self):
        """Values of a megabyte, transactions that travel in parts, many rows."""
        rng = self.rng
        k = rng.randrange(6)
        if k == 0:
            return [("INSERT OR REPLACE INTO big VALUES (?, randomblob(1048576))", (rng.randrange(4),))]
        if k == 1:
            return [("INSERT OR REPLACE INTO big VALUES (?, CAST(zeroblob(1048576) AS TEXT))", (rng.randrange(4),))]
        if k == 2:
            return [("INSERT OR REPLACE INTO big SELECT value, randomblob(150000) FROM json_each(?)",
                     (str([rng.randrange(40) for _ in range(rng.randrange(5, 25))]),))]
        if k == 3:
            return [("WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ?) "
                     "INSERT OR REPLACE INTO plain SELECT n, random(), hex(randomblob(20)), n FROM c",
                     (rng.choice([300, 3000]),))]
        if k == 4:
            return [("UPDATE big SET v = substr(v, 1, length(v) / 2)", ()), ("DELETE FROM big WHERE id % 3 = 1", ())]
        return [("DELETE FROM plain WHERE id > 40", ()), ("UPDATE plain SET c = ?", (rng.randrange(9),))]
