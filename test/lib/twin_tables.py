"""Random tables, and random statements over them, for a database and its twin.

    t = Tables(rng, invalid)   # invalid: texts that are no UTF-8 too (no UTF-16 database among the nodes)
    t.schema                   # SQL of all of them
    t.leave(names)             # statements leave these tables alone
    t.transaction()            # [(sql, arguments), ..]

Keys of each kind and collation, WITHOUT ROWID, STRICT, none at all; names with quotes, keywords and
emoji; UNIQUE sets, of expressions and parts too; CHECK, DEFAULT, generated columns, triggers, a view to
write through, references that cascade, to the table itself and in a circle; 500 columns; values of 1 MB.
What statements do is the same wherever they run: nothing is random in SQL.
"""
import sqlite3

NAMES = ["a", "b b", 'c"d', "it's", "select", "\U0001F9AB", "Größe", "rowid", "[x]", "%w", "new", "old", "_rowid_", "oid",
         "A1", "--x", "main"]
COLLATIONS = ["", " COLLATE NOCASE", " COLLATE RTRIM", " COLLATE BINARY"]
TYPES = ["", "TEXT", "REAL", "BLOB", "NUMERIC", "INTEGER", "INT", "DOUBLE", "VARCHAR(3)", "DATE", "FLOATING POINT", "ANY"]
STRICT_TYPES = ["INT", "INTEGER", "REAL", "TEXT", "BLOB", "ANY"]
ACTIONS = ["REPLACE", "IGNORE", "REPLACE", "ABORT", "FAIL", "ROLLBACK"]
MOST = 2**63 - 1
VALUES = [None, 0, 1, -1, 2, 3, MOST, -2**63, 2**53 + 1, 0.0, -0.0, 1.0, 1.5, 1e300, 5e-324, 2.0**63, -2.0**63, float("inf"),
          float("-inf"), float("nan"), "", "x", "X", "x ", "a\0b", "\0", "1", "1.0", " 1", "1e3", "\U0001F9AB", "\ufeffbom",
          "é", "É", "0x10", "9223372036854775808", "-0", "-0.0", "nan", "inf", b"", b"\0", b"x", b"\xff\xfe\x00", "y" * 3000,
          b"\1" * 9000, 9007199254740993.0, 1e15, 123456789012345678]
KEYS = [None, 0, 1, 2, 3, 1.0, 1.5, -0.0, MOST, -2**63, "", "a", "A", "a ", "b", "B", "1", "1.0", "a\0b", "\U0001F9AB", "Ā",
        b"", b"a", b"\0", float("inf")]
TWISTS = ["-%s", "-0.0 * abs(%s)", "CAST(%s AS BLOB)", "CAST(%s AS TEXT)", "CAST(%s AS NUMERIC)", "%s || char(0)", "upper(%s)",
          "%s * 1.0", "%s + 1", "substr(%s, 2)"]
NEAR = [[0, 0.0, -0.0], ["0", b"0", 0.0], ["a", "A", "a ", b"a"], [MOST, 2.0**63]]  # equal for some, and not the same
WIDE = 500
FIXED = """
CREATE TABLE par(id INTEGER PRIMARY KEY, v UNIQUE);
CREATE TABLE chi(id INTEGER PRIMARY KEY, p REFERENCES par(id) ON DELETE CASCADE ON UPDATE CASCADE,
    pv REFERENCES par(v) ON UPDATE SET NULL ON DELETE SET DEFAULT, d DEFAULT NULL);
CREATE TABLE self(id TEXT PRIMARY KEY, up REFERENCES self(id) ON DELETE CASCADE ON UPDATE CASCADE
    DEFERRABLE INITIALLY DEFERRED) WITHOUT ROWID;
CREATE TABLE hen(id INTEGER PRIMARY KEY, egg REFERENCES egg(id) DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE egg(id TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, hen REFERENCES hen(id) ON UPDATE CASCADE DEFERRABLE INITIALLY DEFERRED);
CREATE VIEW seen AS SELECT id, v FROM par;
CREATE TRIGGER seen_insert INSTEAD OF INSERT ON seen BEGIN
    INSERT OR REPLACE INTO par VALUES (new.id, new.v); INSERT INTO chi(p) VALUES (new.id); END;
CREATE TRIGGER seen_delete INSTEAD OF DELETE ON seen BEGIN DELETE FROM par WHERE id = old.id; END;
CREATE TABLE wide(id INTEGER PRIMARY KEY, %s);
CREATE TABLE large(k TEXT PRIMARY KEY NOT NULL, t, b);
CREATE TABLE bag(n, t TEXT COLLATE NOCASE);
CREATE TABLE near(k COLLATE NOCASE PRIMARY KEY NOT NULL, v);
CREATE TABLE audit(n, what, v);
""" % ", ".join("c%d" % k for k in range(1, WIDE))
LARGE = ["CAST(zeroblob(1048576) AS TEXT)", "hex(zeroblob(524288))", "zeroblob(1048576)", "printf('%.*c', 1048576, 'y')"]
INVALID = ["x'ff80'", "x'61c3'", "x'edbfbf'", "x'00ff00'"]


class Sql(str):
    """A value that is an expression."""


def q(name):
    return '"%s"' % name.replace('"', '""')


def marks(values):
    return ", ".join(v if isinstance(v, Sql) else "?" for v in values)


def bound(values):
    return [v for v in values if not isinstance(v, Sql)]


class Table:
    def __init__(self, rng, number):
        self.name = rng.choice(["t%d", "t %d", 'T"%d', "tä%d", "\U0001F600%d", "select%d"]) % number
        self.columns = rng.sample(NAMES, rng.randint(2, 6))
        self.strict = rng.random() < 0.2
        self.kind = rng.choice(["integer", "one", "one", "many", "many", "without", "without", "none", "null", "index"])
        self.key, self.others, self.definitions = [], [], []
        for k, c in enumerate(self.columns):
            self.definitions.append(self.column(rng, k, c))
        self.generated(rng)
        if self.kind in ("many", "without", "index"):
            self.definitions.append("PRIMARY KEY (%s)" % ", ".join(
                q(k) + (rng.choice(COLLATIONS) if self.kind == "index" else "") + rng.choice(["", "", " DESC"]) for k in self.key))
        options = ["STRICT"] * self.strict + ["WITHOUT ROWID"] * (self.kind == "without")
        self.sql = "CREATE TABLE %s(%s) %s;\n" % (q(self.name), ", ".join(self.definitions), ", ".join(options))
        self.indexes(rng, number)
        self.trigger(rng, number)

    def column(self, rng, k, c):
        kind = rng.choice(STRICT_TYPES if self.strict else TYPES)
        collation = rng.choice(COLLATIONS)
        if k == 0 and self.kind in ("integer", "one", "null"):
            self.key.append(c)
            return q(c) + {"integer": " INTEGER PRIMARY KEY" + rng.choice(["", "", " AUTOINCREMENT", " DESC"]),
                           "one": " %s%s PRIMARY KEY NOT NULL" % (kind, collation),
                           "null": " %s%s PRIMARY KEY" % ("INT" if kind == "INTEGER" else kind, collation)}[self.kind]
        if self.kind in ("many", "without", "index") and k < min(2, len(self.columns) - 1) + (len(self.columns) > 4):
            self.key.append(c)
            default = " DEFAULT 1" if rng.random() < 0.2 and (not self.strict or kind in ("INT", "INTEGER", "ANY")) else ""
            return "%s %s%s NOT NULL%s" % (q(c), kind, collation, default)
        self.others.append(c)
        dice, text = rng.random(), "%s %s%s" % (q(c), kind, collation)
        if dice < 0.12:
            literal = "NULL" if self.strict else rng.choice(["'dflt'", "NULL", "(1+1)"])
            return text + " DEFAULT " + literal
        if dice < 0.2 and not self.strict:
            return text + " CHECK (typeof(%s) <> 'blob' OR length(%s) < 100)" % (q(c), q(c))
        return text + (" UNIQUE" if dice < 0.32 else " NOT NULL ON CONFLICT IGNORE" if dice < 0.38 else "")

    def generated(self, rng):
        if self.others and rng.random() < 0.4:
            c, kind = q(rng.choice(self.others)), "TEXT" if self.strict else ""
            self.definitions.append("g1 %s AS (typeof(%s) || length(%s)) %s" % (kind, c, c, rng.choice(["STORED", "VIRTUAL"])))
            if rng.random() < 0.5:
                self.definitions.append("g2 %s AS (typeof(%s)) VIRTUAL" % (kind, c))

    def indexes(self, rng, number):
        if self.others and rng.random() < 0.3:
            c, part = rng.choice(self.others), q(rng.choice(self.columns))
            self.sql += "CREATE UNIQUE INDEX i%d ON %s(%s) WHERE %s;\n" % (
                number, q(self.name), q(c), rng.choice([part + " IS NOT NULL", "typeof(%s) = 'integer'" % part]))
        if self.others and rng.random() < 0.2:
            c = q(rng.choice(self.others))
            self.sql += "CREATE UNIQUE INDEX j%d ON %s(%s);\n" % (number, q(self.name), rng.choice(
                ["quote(%s)" % c, "substr(%s, 1, 1), typeof(%s)" % (c, c), c + " COLLATE NOCASE",
                 "%s COLLATE RTRIM DESC, %s" % (c, q(self.columns[0]))]))

    def trigger(self, rng, number):
        if rng.random() < 0.25:
            event = rng.choice(["INSERT", "DELETE", "UPDATE"])
            self.sql += "CREATE TRIGGER tr%d AFTER %s ON %s BEGIN INSERT INTO audit VALUES (%d, '%s', typeof(%s.%s)); END;\n" % (
                number, event, q(self.name), number, event, "old" if event == "DELETE" else "new", q(self.columns[0]))

    def stands(self):
        """SQLite takes it."""
        if len({c.lower() for c in self.columns}) < len(self.columns):
            return False
        db = sqlite3.connect(":memory:")
        try:
            db.executescript("CREATE TABLE audit(n, what, v);" + self.sql)
            keys = [origin for _, _, _, origin, _ in db.execute("PRAGMA index_list(%s)" % q(self.name))]
            self.kind = "integer" if self.key and "pk" not in keys else self.kind  # INTEGER as whole key is the rowid
            return True
        except sqlite3.Error:
            return False
        finally:
            db.close()


class Tables:
    def __init__(self, rng, invalid):
        self.rng, self.invalid, self.altered = rng, invalid, 0
        # Bytes that are no text become one by CAST, || and upper(), too.
        self.values = [v for v in VALUES if invalid or v != b"\xff\xfe\x00"]
        self.twists = [t for t in TWISTS if invalid or "BLOB" not in t]
        self.tables = []
        while len(self.tables) < 8:
            t = Table(rng, len(self.tables))
            if t.stands():
                self.tables.append(t)
        self.schema = FIXED + "".join(t.sql for t in self.tables)

    def leave(self, names):
        self.tables = [t for t in self.tables if t.name not in names]

    def value(self, t, c):
        rng = self.rng
        if self.invalid and c not in t.key and rng.random() < 0.05:
            return Sql("CAST(%s AS TEXT)" % rng.choice(INVALID))
        v = rng.choice(KEYS if c in t.key or rng.random() < 0.3 else self.values)
        # Behind the highest rowid SQLite takes one by chance.
        return 7 if t.kind == "integer" and c in t.key and v in (MOST, 2.0**63, "9223372036854775808") else v

    def fixed(self):
        rng = self.rng
        i, j, v = rng.randrange(6), rng.randrange(6), rng.choice(KEYS)
        columns = sorted(rng.sample(range(1, WIDE), rng.choice([1, 3, 40])))
        return rng.choice([
            ("INSERT INTO seen VALUES (?, ?)", [i, v]), ("DELETE FROM seen WHERE id = ?", [i]),
            ("UPDATE OR REPLACE par SET id = ? WHERE id = ?", [i, j]), ("UPDATE OR IGNORE par SET v = ? WHERE id = ?", [v, i]),
            ("INSERT INTO chi(p) VALUES (?)", [i]), ("UPDATE chi SET pv = (SELECT v FROM par WHERE id = ?) WHERE id = ?", [i, j]),
            ("INSERT OR REPLACE INTO self VALUES (?, ?)", [str(i), str(j)]), ("DELETE FROM self WHERE id = ?", [str(i)]),
            ("UPDATE OR IGNORE self SET id = ? WHERE id = ?", [str(i), str(j)]),
            ("INSERT OR IGNORE INTO hen VALUES (?, ?)", [i, "e%d" % j]), ("INSERT OR REPLACE INTO egg VALUES (?, ?)", ["E%d" % j, i]),
            ("UPDATE OR IGNORE hen SET id = ? WHERE id = ?", [i, j]), ("DELETE FROM egg WHERE id = ?", ["e%d" % i]),
            ("INSERT INTO bag VALUES (?, ?), (?, ?)", [v, v, v, v]), ("UPDATE bag SET n = t WHERE n IS ?", [v]),
            ("DELETE FROM bag WHERE rowid = (SELECT min(rowid) FROM bag WHERE n IS ?)", [v]), ("DELETE FROM bag WHERE t = ?", [v]),
            ("INSERT OR REPLACE INTO wide(id, %s) VALUES (?%s)" % (", ".join("c%d" % c for c in columns), ", ?" * len(columns)),
             [i] + columns),
            ("UPDATE wide SET %s WHERE id = ?" % ", ".join("c%d = ?" % c for c in columns), [v] * len(columns) + [i])])

    def near(self):
        rng = self.rng
        alike = rng.choice(NEAR)
        k, a, b = rng.choice(alike), rng.choice(alike), rng.choice(alike)
        return rng.choice([
            ("INSERT OR IGNORE INTO near VALUES (?, ?)", [a, b]), ("INSERT OR REPLACE INTO near VALUES (?, ?)", [a, b]),
            ("UPDATE near SET v = ? WHERE k = ?", [a, k]), ("UPDATE OR REPLACE near SET k = ? WHERE k = ?", [a, b])])

    def huge(self):
        k, a, b = "k%d" % self.rng.randrange(3), self.rng.choice(LARGE), self.rng.choice(LARGE)
        return self.rng.choice([
            ("INSERT OR REPLACE INTO large VALUES (?, %s, %s)" % (a, b), [k]), ("DELETE FROM large WHERE k = ?", [k]),
            ("UPDATE large SET t = %s, b = CAST(t AS BLOB) WHERE k = ?" % a, [k]),
            ("UPDATE large SET t = substr(t, 2) || 'end' WHERE k = ?", [k])])

    def statement(self):
        rng, dice = self.rng, self.rng.random()
        if dice < 0.17:
            return self.huge() if dice < 0.01 else self.near() if dice < 0.06 else self.fixed()
        if dice < 0.25:
            return self.between()
        t = rng.choice(self.tables)
        name, columns, dice = q(t.name), t.columns, rng.random()
        where, wanted = q(rng.choice(t.key or columns)), rng.choice(KEYS)
        if dice < 0.5:
            chosen = columns if dice < 0.45 else rng.sample(columns, rng.randint(1, len(columns)))
            values = [self.value(t, c) for c in chosen]
            return ("INSERT OR %s INTO %s(%s) VALUES (%s)" % (
                rng.choice(ACTIONS) if dice < 0.45 else "REPLACE", name,
                ", ".join(map(q, chosen)), marks(values)), bound(values))
        c = rng.choice(columns)
        value = [self.value(t, c)]
        if dice < 0.75:
            return ("UPDATE OR %s %s SET %s = %s WHERE %s IS ?" % (
                rng.choice(ACTIONS), name, q(c), marks(value), where), bound(value) + [wanted])
        if dice < 0.79:
            twist = rng.choice(self.twists)
            c = rng.choice(t.others or columns) if t.kind == "integer" and "1" in twist else c  # to the highest rowid
            return ("UPDATE OR %s %s SET %s = %s WHERE typeof(%s) <> 'null'" % (
                rng.choice(["REPLACE", "IGNORE", "FAIL"]), name, q(c), twist % q(c), q(c)), [])
        if dice < 0.82:
            return ("UPDATE OR %s %s SET %s = %s" % (rng.choice(["REPLACE", "IGNORE"]), name, q(c), marks(value)), bound(value))
        if dice < 0.86 and t.kind != "integer":
            a, b = rng.sample(columns, 2)
            return ("UPDATE OR REPLACE %s SET %s = %s, %s = %s" % (name, q(a), q(b), q(b), q(a)), [])
        if dice < 0.9 and t.key:
            values = [self.value(t, x) for x in columns]
            return ("INSERT INTO %s(%s) VALUES (%s) ON CONFLICT DO UPDATE SET %s = excluded.%s" % (
                name, ", ".join(map(q, columns)), marks(values), q(c), q(c)), bound(values))
        return ("DELETE FROM %s WHERE %s IS ?" % (name, where), [wanted])

    def between(self):
        """Rows of one table into another or the same, several at once, all of them, and what stays in the connection."""
        rng, dice = self.rng, self.rng.random()
        t, other = rng.choice(self.tables), rng.choice(self.tables)
        n = min(len(t.columns), len(other.columns))
        to, source = ", ".join(map(q, t.columns[:n])), ", ".join(map(q, other.columns[:n]))
        action = rng.choice(ACTIONS)
        if t.kind == "integer" and other is not t:  # as value() does it
            source = ", ".join(["7"] + [q(c) for c in other.columns[1:n]])
        if dice < 0.3:
            return ("INSERT OR %s INTO %s(%s) SELECT %s FROM %s ORDER BY %s LIMIT 4" % (
                action, q(t.name), to, source, q(other.name), ", ".join(map(q, other.key or other.columns))), [])
        if dice < 0.5:
            rows = [[self.value(t, c) for c in t.columns] for _ in range(3)]
            return ("INSERT OR %s INTO %s(%s) VALUES %s" % (
                action, q(t.name), ", ".join(map(q, t.columns)), ", ".join("(%s)" % marks(r) for r in rows)), bound(sum(rows, [])))
        if dice < 0.6:
            return ("UPDATE OR %s %s SET %s = other.%s FROM (SELECT * FROM %s ORDER BY %s LIMIT 1) AS other" % (
                action, q(t.name), q(rng.choice(t.others or t.columns)), q(rng.choice(other.columns)), q(other.name),
                ", ".join(map(q, other.key or other.columns))), [])
        if dice < 0.63:
            return ("DELETE FROM " + q(t.name), [])
        return rng.choice([("SAVEPOINT s", []), ("SAVEPOINT s", []), ("ROLLBACK TO s", []), ("RELEASE s", []),
                           ("PRAGMA defer_foreign_keys = 1", []), ("CREATE TEMP TABLE par AS SELECT * FROM main.par", []),
                           ("DROP TABLE temp.par", []), ("CREATE TEMP TABLE bag(n, t UNIQUE)", []), ("DROP TABLE temp.bag", [])])

    def alter(self):
        """A change of the schema that all nodes take alike, or none."""
        rng, t = self.rng, self.rng.choice(self.tables)
        name, dice = q(t.name), self.rng.random()
        used = {x.lower() for x in t.columns} | {"rowid", "_rowid_", "oid"}  # all three, and no key: not supported
        free = [c for c in NAMES if c.lower() not in used]
        self.altered += 1
        if dice < 0.4 and " VIRTUAL" not in t.sql:  # one before other columns is not supported
            c = rng.choice(free)
            kind = rng.choice(STRICT_TYPES if t.strict else TYPES)
            default = rng.choice(["", "", " DEFAULT 1"] + ["", " DEFAULT 'x'", " NOT NULL DEFAULT ''"] * (not t.strict))
            t.columns.append(c)
            t.others.append(c)
            return "ALTER TABLE %s ADD COLUMN %s %s%s%s" % (name, q(c), kind, rng.choice(COLLATIONS), default)
        if dice < 0.55:
            old, new = rng.choice(t.columns), rng.choice(free)
            for names in (t.columns, t.key, t.others):
                names[:] = [new if c == old else c for c in names]
            return "ALTER TABLE %s RENAME COLUMN %s TO %s" % (name, q(old), q(new))
        if dice < 0.8 and t.others:
            return "CREATE %sINDEX k%d ON %s(%s%s)%s" % (
                rng.choice(["UNIQUE ", ""]), self.altered, name, q(rng.choice(t.others)), rng.choice(COLLATIONS),
                rng.choice(["", " WHERE %s IS NOT NULL" % q(rng.choice(t.columns))]))
        if dice < 0.9:
            return "DROP INDEX IF EXISTS %s%d" % (rng.choice("ijk"), rng.randrange(8))
        return rng.choice(["VACUUM", "REINDEX", "ANALYZE"])

    def transaction(self, most=5):
        return [self.statement() for _ in range(self.rng.randint(1, most))]
