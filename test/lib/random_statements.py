"""Random statements of writers over tables of several shapes.

    transaction(rng)   # statements parted by "; ", from BEGIN to COMMIT
"""
SCHEMA = ("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT, r REAL);"
          "CREATE TABLE u(k TEXT NOT NULL PRIMARY KEY COLLATE NOCASE, x UNIQUE, y);"
          "CREATE TABLE w(p INT, q TEXT, v, PRIMARY KEY(p, q)) WITHOUT ROWID;"
          "CREATE TABLE wide(id INTEGER PRIMARY KEY, %s);"
          "CREATE TABLE bag(x, y TEXT); CREATE TABLE ubag(x, u UNIQUE, y); CREATE TABLE wbag(%s);"
          "CREATE TABLE named(k TEXT PRIMARY KEY COLLATE NOCASE, u INT UNIQUE, v);"
          "CREATE TABLE pair(p, q, v, PRIMARY KEY(p, q));"
          "CREATE TABLE ruled(id INTEGER PRIMARY KEY, name TEXT, live);"
          "CREATE UNIQUE INDEX ruled_name ON ruled(lower(name), live + 0 DESC) WHERE live > 0;"
          "CREATE TABLE rbag(name, n); CREATE UNIQUE INDEX rbag_n ON rbag(n %% 4) WHERE name <> 'x';"
          "CREATE TABLE many(%s, v UNIQUE, PRIMARY KEY(%s));" % tuple(", ".join(w % k for k in range(n)) for w, n in (
              ("c%d", 40), ("c%d", 33), ("k%d NOT NULL", 18), ("k%d", 18))))
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
        lambda: "INSERT INTO bag VALUES (%s, %s), (%s, 'x')" % (v(), v(), v()),
        lambda: "INSERT OR %s INTO bag(rowid, x) VALUES (%d, %s), (%d, 1)" %
                (rng.choice(["REPLACE", "IGNORE"]), n(), v(), n()),
        lambda: "UPDATE OR REPLACE bag SET x = %s, rowid = rowid + %d WHERE rowid <= %d" % (v(), rng.choice([0, 0, 1, -1]), n()),
        lambda: "DELETE FROM bag WHERE x IS %s" % v(),
        lambda: "DELETE FROM bag WHERE rowid = %d RETURNING x" % n(),
        lambda: "INSERT OR %s INTO ubag VALUES (%s, %d, 1), (%s, NULL, 2)" %
                (rng.choice(["REPLACE", "IGNORE", "FAIL"]), v(), n(), v()),
        lambda: "INSERT INTO ubag VALUES (%s, %d, %s) ON CONFLICT %s" %
                (v(), n(), v(), rng.choice(["DO NOTHING", "(u) DO UPDATE SET x = excluded.y"])),
        lambda: "UPDATE OR %s ubag SET u = u + %d, x = %s WHERE rowid > %d" %
                (rng.choice(["REPLACE", "IGNORE"]), rng.choice([0, 1, -1]), v(), n()),
        lambda: "DELETE FROM ubag WHERE x IS (SELECT x FROM ubag LIMIT 1)",
        lambda: "INSERT INTO wbag(c0, c14, c15, c16, c31, c32) VALUES (%s, %s, %s, %s, %s, %s)" % (v(), v(), v(), v(), v(), v()),
        lambda: "UPDATE wbag SET c%d = %s, c15 = 1 WHERE rowid <= %d" % (rng.randint(0, 32), v(), n()),
        lambda: "DELETE FROM wbag WHERE rowid > %d" % n(),
        lambda: "INSERT OR %s INTO named VALUES (%s, %d, %s)" %
                (rng.choice(["REPLACE", "IGNORE"]), rng.choice(["NULL", "'a'", "'A'", "'b'"]), n(), v()),
        lambda: "INSERT INTO named VALUES (%s, NULL, %s)" % (rng.choice(["NULL", "'%d'" % n()]), v()),
        lambda: "UPDATE OR REPLACE named SET k = %s, v = %s WHERE u %s" %
                (rng.choice(["NULL", "k", "'A'", "'c'"]), v(), rng.choice(["= %d" % n(), "IS NULL"])),
        lambda: "UPDATE OR REPLACE named SET u = u + 1 WHERE k IS NOT 'a'",
        lambda: "DELETE FROM named WHERE k IS %s" % rng.choice(["NULL", "'a'", "'B'"]),
        lambda: "INSERT INTO named VALUES ('a', %d, %s) ON CONFLICT (k) DO UPDATE SET u = NULL, v = %s" % (n(), v(), v()),
        lambda: "REPLACE INTO pair VALUES (%s, %s, %s)" % (rng.choice(["NULL", "1"]), rng.choice(["NULL", "1", "'k'"]), v()),
        lambda: "UPDATE OR IGNORE pair SET p = %s, v = %s WHERE q IS %s" %
                (rng.choice(["NULL", "1", "2.0"]), v(), rng.choice(["NULL", "1", "'k'"])),
        lambda: "DELETE FROM pair WHERE p IS NULL AND q IS %s" % rng.choice(["NULL", "1", "'k'"]),
        lambda: "INSERT OR %s INTO ruled(name, live) VALUES ('%s', %d), ('A', 2)" %
                (rng.choice(["REPLACE", "IGNORE", "FAIL"]), rng.choice("aAbB"), rng.randint(0, 2)),
        lambda: "UPDATE OR REPLACE ruled SET live = %d, name = upper(name) WHERE id %% 3 = %d" %
                (rng.randint(0, 2), rng.randint(0, 2)),
        lambda: "DELETE FROM ruled WHERE id = (SELECT min(id) FROM ruled)",
        lambda: "INSERT OR %s INTO rbag VALUES ('%s', %d)" % (rng.choice(["REPLACE", "IGNORE"]), rng.choice("xyz"), n()),
        lambda: "UPDATE OR REPLACE rbag SET name = 'y', n = n + 1 WHERE n >= %d" % n(),
        lambda: "DELETE FROM rbag WHERE n = %d" % n(),
        lambda: "REPLACE INTO many VALUES (%s, %s)" %
                (", ".join(["1"] * 15 + ["%d" % rng.randint(0, 1) for _ in range(3)]), n()),
        lambda: "UPDATE OR REPLACE many SET k%d = %d, v = v + %d WHERE k17 = 1" %
                (rng.randint(14, 17), rng.randint(0, 1), rng.choice([0, 1])),
        lambda: "DELETE FROM many WHERE k15 = %d AND k16 = %d" % (rng.randint(0, 1), rng.randint(0, 1)),
        lambda: "UPDATE wide SET c%d = %s WHERE id < %d" % (rng.randint(0, 39), v(), n()),
    ])()


def transaction(rng):
    steps = [statement(rng) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.2:
        steps[len(steps) // 2:] = ["SAVEPOINT s"] + steps[len(steps) // 2:] + ["ROLLBACK TO s", "RELEASE s"]
    return "BEGIN IMMEDIATE; " + "; ".join(steps) + "; COMMIT"
