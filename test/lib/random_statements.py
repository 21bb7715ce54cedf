"""Random statements of writers over tables of several shapes.

    transaction(rng)   # statements parted by "; ", from BEGIN to COMMIT
"""
SCHEMA = ("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT, r REAL);"
          "CREATE TABLE u(k TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, x UNIQUE, y);"
          "CREATE TABLE w(p INT, q TEXT, v, PRIMARY KEY(p, q)) WITHOUT ROWID;"
          "CREATE TABLE wide(id INTEGER PRIMARY KEY, %s);" % ", ".join("c%d" % k for k in range(40)))
VALUES = ["NULL", "1", "1.0", "-0.0", "9e999", "'x'", "CAST(X'610062' AS TEXT)", "X'00ff'", "0.1", "''", "'3'"]


def statement(rng):
    v, n = lambda: rng.choice(VALUES), lambda: rng.randint(1, 8)
    return rng.choice([
        lambda: "INSERT OR REPLACE INTO t VALUES (%d, %s, %s, %s)" % (n(), v(), v(), v()),
        lambda: "INSERT INTO t(a, b) VALUES (%s, %s)" % (v(), v()),
        lambda: "UPDATE t SET a = %s, r = %s WHERE id <= %d" % (v(), v(), n()),
        lambda: "UPDATE OR REPLACE t SET id = id + %d WHERE id = %d" % (rng.choice([1, -1, 3]), n()),
        lambda: "DELETE FROM t WHERE id = %d" % n(),
        lambda: "INSERT OR REPLACE INTO u VALUES ('%s', %d, %s)" % (rng.choice("aAbBcd"), n(), v()),
        lambda: "INSERT INTO u VALUES ('%s', %d, %s) ON CONFLICT DO UPDATE SET y = %s" %
                (rng.choice("aAbB"), n(), v(), v()),
        lambda: "INSERT OR IGNORE INTO u VALUES ('%s', %d, 1)" % (rng.choice("aAbBe"), n()),
        lambda: "UPDATE OR REPLACE u SET x = %d WHERE k = '%s'" % (n(), rng.choice("abcd")),
        lambda: "UPDATE OR IGNORE u SET k = '%s' WHERE x = %d" % (rng.choice("aBcf"), n()),
        lambda: "DELETE FROM u WHERE x = %d" % n(),
        lambda: "INSERT OR REPLACE INTO w VALUES (%d, '%s', %s)" % (n() % 3, rng.choice("xy"), v()),
        lambda: "UPDATE w SET v = %s" % v(),
        lambda: "DELETE FROM w WHERE p = %d" % (n() % 3),
        lambda: "INSERT OR REPLACE INTO wide(id, c0, c15, c16, c39) VALUES (%d, %s, %s, %s, %s)" %
                (n(), v(), v(), v(), v()),
        lambda: "UPDATE wide SET c%d = %s WHERE id < %d" % (rng.randint(0, 39), v(), n()),
    ])()


def transaction(rng):
    steps = [statement(rng) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.2:
        steps[len(steps) // 2:] = ["SAVEPOINT s"] + steps[len(steps) // 2:] + ["ROLLBACK TO s", "RELEASE s"]
    return "BEGIN IMMEDIATE; " + "; ".join(steps) + "; COMMIT"
