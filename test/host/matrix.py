"""Programs in many languages as nodes: each replicates both ways with a second
node, closes, ends, and leaves nothing behind.
marmot-test: limit=3000

MARMOT_HOSTS names the kinds of lib/host_kinds.py, or `all`; without it those that
small packages of Debian and npm bring. One that cannot be had is `skipped`.
"""
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from host_kinds import KINDS, Absent  # noqa: E402

FEW = "shell c c-static python perl php ruby tcl lua node better-sqlite3 bun"
SCHEMA = """
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, price REAL, photo BLOB, extra);
CREATE TABLE tag(item INT, word TEXT COLLATE NOCASE, n INT, PRIMARY KEY(item, word)) WITHOUT ROWID;
CREATE TABLE person(id INTEGER PRIMARY KEY, mail TEXT UNIQUE, age INT);
CREATE TABLE visit(person INT REFERENCES person ON DELETE CASCADE, place TEXT);
CREATE TABLE note(k TEXT PRIMARY KEY, word TEXT, live INT);
CREATE UNIQUE INDEX note_word ON note(lower(word)) WHERE live = 1;
"""
VALUES = ["1, 'plain', 1.5, x'00ff10', NULL", "2, 'Grüße, 世界 🌍', 3.0, zeroblob(3000), 9007199254740993",
          "3, '', -0.0, x'', 1e300", "4, NULL, NULL, NULL, 'it''s'", "-9223372036854775808, 'least', 2, 'text', 9223372036854775807",
          "6, 'a' || char(0) || 'b', 0.1, NULL, 2.0", "7, hex(zeroblob(40000)), 7, NULL, NULL"]
END_SECONDS = 10


def group_of(leader):
    """Process ids, other than the leader's own, of the session that it leads."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % pid) as f:
                session = int(f.read().rsplit(")", 1)[1].split()[3])
        except OSError:
            continue
        if session == leader and int(pid) != leader:
            found.append(int(pid))
    return found


def texts(host, sql):
    return host.ask(sql + ";")


def host_writes(host):
    """Every kind of statement; what came back wrong."""
    wrong = []

    def expect(what, got, wanted):
        if got != wanted:
            wrong.append("%s: %s, not %s" % (what, got, wanted))
    for row in VALUES:
        host.ask("INSERT INTO item VALUES (%s);" % row)
    expect("last_insert_rowid()", texts(host, "SELECT last_insert_rowid()"), ["7"])
    host.ask("UPDATE item SET extra = 'many' WHERE id BETWEEN 1 AND 4;")
    expect("changes()", texts(host, "SELECT changes()"), ["4"])
    host.ask("BEGIN IMMEDIATE;", "INSERT INTO tag VALUES (1, 'red', 1), (1, 'Blue', 2), (2, 'red', 3);",
             "DELETE FROM item WHERE id = 3;", "SAVEPOINT s;", "DELETE FROM tag;", "ROLLBACK TO s;", "RELEASE s;", "COMMIT;")
    host.ask("BEGIN;", "DELETE FROM item;", "ROLLBACK;")
    host.ask("INSERT INTO person VALUES (1, 'ann@a', 30), (2, 'bob@b', 40), (3, 'cid@c', 50);",
             "INSERT INTO visit(person, place) VALUES (1, 'here'), (1, 'here'), (3, 'there');")
    host.ask("PRAGMA foreign_keys = ON;", "DELETE FROM person WHERE id = 3;")
    host.ask("INSERT OR REPLACE INTO person VALUES (4, 'bob@b', 41);")
    host.ask("BEGIN;", "UPDATE person SET age = 31 WHERE id = 1;")
    try:
        host.ask("INSERT INTO person VALUES (9, 'new@n', 1), (10, 'ann@a', 2);")
        wrong.append("a constraint did not fail")
    except SqlError:
        pass
    host.ask("COMMIT;")
    expect("RETURNING", texts(host, "UPDATE item SET name = 'returned' WHERE id = 4 RETURNING name || id"), ["returned4"])
    host.ask("INSERT INTO visit VALUES (1, 'away'), (1, 'away');", "DELETE FROM visit WHERE rowid = (SELECT max(rowid) FROM visit);")
    host.ask("INSERT INTO note VALUES (NULL, 'One', 1), (NULL, 'One', 0), (NULL, 'One', 0), ('k', 'Two', 1);",
             "REPLACE INTO note VALUES ('j', 'ONE', 1);", "UPDATE OR REPLACE note SET k = 'j' WHERE k = 'k';",
             "INSERT INTO note VALUES ('j', 'x', 0) ON CONFLICT (k) DO UPDATE SET live = 2;",
             "UPDATE note SET k = NULL WHERE k = 'j';", "INSERT OR IGNORE INTO note VALUES ('m', 'two', 1), ('n', 'TWO', 1);")
    host.other("INSERT INTO item(id, name) VALUES (20, 'of the second connection');")
    host.ask("UPDATE tag SET word = 'RED' WHERE item = 2;")
    return wrong


def peer_writes(peer):
    peer.sql("INSERT INTO item VALUES (30, 'from the peer', 2.5, ?, ?)", b"\x00\x01", "é")
    peer.sql("UPDATE item SET price = 99.25 WHERE id = 1")
    peer.sql("DELETE FROM item WHERE id = 2")
    peer.txn([("UPDATE person SET mail = NULL WHERE id = 1", []), ("UPDATE person SET mail = 'ann@a' WHERE id = 4", []),
              ("UPDATE person SET mail = 'bob@b' WHERE id = 1", []), ("DELETE FROM visit", [])])


PEER_ROWS = ("SELECT (SELECT name || hex(photo) || extra FROM item WHERE id = 30) || (SELECT price FROM item WHERE id = 1) || "
             "(SELECT count(*) FROM item WHERE id = 2) || (SELECT mail FROM person WHERE id = 1) || (SELECT count(*) FROM visit)")


def ends(kind, host, word, leader):
    """Ends the host; what was wrong about it."""
    start = time.monotonic()
    code = host.leave(word)
    seconds = time.monotonic() - start
    left = group_of(leader)
    check("%s: %s ends it, with 0, and leaves no process" % (kind.name, word),
          code == 0 and not left, "code %s, left %s" % (code, left))
    bar("%s: %s, soon" % (kind.name, word), seconds < END_SECONDS, "%.1f s" % seconds)


def one_kind(kind):
    begun = time.monotonic()
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        peer = Node(ws, "peer", urls=nats.url, schema=SCHEMA)
        host = kind.start(ws, "host", urls=nats.url, schema=SCHEMA)
        note("%s: %s, SQLite %s" % (kind.name, kind.what, host.one("SELECT sqlite_version()")))
        captures = texts(host, "SELECT DISTINCT capture FROM marmot_tables")
        wanted = ["auto"] if kind.capture == "hook" else ["trigger"]
        check("%s: captures by %s" % (kind.name, wanted[0]), captures == wanted, captures)

        wrong = host_writes(host)
        check("%s: its statements answer as in plain SQLite" % kind.name, not wrong, wrong)
        host.sync()
        common = everywhere([host, peer])
        check("%s: what it writes arrives" % kind.name, [len(common[t][1]) for t in ("item", "tag", "person", "visit", "note")] ==
              [7, 3, 2, 3, 4], {t: len(rows) for t, (_, rows) in common.items()})

        peer_writes(peer)
        peer.sync()
        host.sync()
        rows = texts(host, PEER_ROWS)
        everywhere([host, peer])
        check("%s: it reads what the peer writes" % kind.name, rows == ["from the peer0001é99.250bob@b0"], rows)

        leader = host.process.pid
        host.ask("INSERT INTO item(id, name) VALUES (40, 'before the end');")
        ends(kind, host, ".quit", leader)
        wait_until(lambda: peek(peer.db, "SELECT 1 FROM item WHERE id = 40"), 10, "the last write before the close arrives")
        check("%s: a clean close leaves no write-ahead log" % kind.name, not os.path.exists(host.db + "-wal"), "it is there")

        host.start()
        leader = host.process.pid
        host.ask("UPDATE item SET name = 'without a close' WHERE id = 40;")
        ends(kind, host, ".exit", leader)
        peer.sql("INSERT INTO item(id, name) VALUES (50, 'while it was away')")
        host.start()
        host.sync()
        common = everywhere([host, peer])
        names = [r[1][1] for r in common["item"][1] if r[0][1] in (40, 50)]
        check("%s: goes on after an exit without a close" % kind.name, names == ["without a close", "while it was away"], names)
        host.leave(".quit")
        peer.quit()
        everywhere([host, peer])
    note("%s: %.1f s" % (kind.name, time.monotonic() - begun))


def main():
    wanted = os.environ.get("MARMOT_HOSTS") or FEW
    for name in KINDS if wanted == "all" else wanted.split():
        kind = KINDS[name]
        try:
            kind.prepare()
        except Absent as e:
            print("skipped %s (%s): %s" % (name, kind.what, e), flush=True)
            continue
        try:
            one_kind(kind)
        except (Died, SqlError, Timeout, OSError) as e:
            not_ok(name, "%s: %s" % (type(e).__name__, e))
    finish()


main()
