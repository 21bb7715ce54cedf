"""Bad input of every SQL function: each message names the function, the cause
and the remedy; and what good input answers without any network.
marmot-test: parallel limit=120
"""
import contextlib
import json
import os
import re
import shutil
import sqlite3
import stat
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

# A server that is never there: nothing here needs one.
OFFLINE = '{"nats":{"urls":["nats://127.0.0.1:1"]}}'


def connect(path, load=True, uri=False):
    db = sqlite3.connect(path, isolation_level=None, uri=uri, check_same_thread=False)
    if load:
        db.enable_load_extension(True)
        db.load_extension(EXTENSION)
    return db


def one(db, sql, *args):
    return db.execute(sql, args).fetchone()[0]


def error(db, sql, *args):
    try:
        answer = db.execute(sql, args).fetchall()
    except sqlite3.Error as e:
        return str(e)
    return "no error, but %r" % (answer,)


def fails(name, db, sql, *parts, args=()):
    """The statement fails, and its message has each of the parts."""
    message = error(db, sql, *args)
    function = re.search(r"marmot_\w+", sql).group(0)
    missing = [p for p in (function + ": ",) + parts if p not in message]
    check(name, not missing, "%r lacks %r" % (message, missing))


def argument_counts(db):
    for call, usage in [
            ("marmot_init('a', 'b')", "marmot_init([config])"),
            ("marmot_watch_all('hook', 1)", "marmot_watch_all([mode])"),
            ("marmot_watch()", "marmot_watch(table [, mode])"),
            ("marmot_watch('t', 'hook', 1)", "marmot_watch(table [, mode])"),
            ("marmot_unwatch()", "marmot_unwatch(table)"),
            ("marmot_unwatch('t', 't')", "marmot_unwatch(table)"),
            ("marmot_sync(1, 2)", "marmot_sync([timeout_ms])"),
            ("marmot_run(1, 2)", "marmot_run([timeout_ms])"),
            ("marmot_status(1)", "marmot_status()"),
            ("marmot_policy('t', 'x')", "marmot_policy(table, column, rule)"),
            ("marmot_policy('t', 'x', 'max', 1)", "marmot_policy(table, column, rule)"),
            ("marmot_verify(1, 2)", "marmot_verify([timeout_ms])"),
            ("marmot_retry()", "marmot_retry(id)"),
            ("marmot_skip('1:2', 'now')", "marmot_skip(id)"),
            ("marmot_stop(1)", "marmot_stop()"),
            ("marmot_cleanup('discard', 1)", "marmot_cleanup(['discard'])"),
            ("marmot_version(1)", "marmot_version()"),
            ("marmot_node_id(1)", "marmot_node_id()"),
            ("marmot_id(63, 1)", "marmot_id([bits])")]:
        fails("count: " + call, db, "SELECT " + call, " given: call ", usage)


def argument_types(db):
    text = [("marmot_init", "%s"), ("marmot_watch_all", "%s"), ("marmot_watch", "%s"), ("marmot_watch", "'t', %s"),
            ("marmot_unwatch", "%s"), ("marmot_cleanup", "%s"), ("marmot_policy", "%s, 'x', 'max'"),
            ("marmot_policy", "'t', %s, 'max'"), ("marmot_policy", "'t', 'x', %s"), ("marmot_retry", "%s"),
            ("marmot_skip", "%s")]
    number = [("marmot_sync", "%s"), ("marmot_run", "%s"), ("marmot_id", "%s"), ("marmot_verify", "%s")]
    values = {"1": "an integer", "1.5": "a real", "'x'": "text", "x'00'": "a blob", "NULL": "NULL"}
    for wanted, calls in (("text", text), ("an integer", number)):
        for function, form in calls:
            for value, kind in values.items():
                if kind != wanted:
                    call = "%s(%s)" % (function, form % value)
                    fails("type: " + call, db, "SELECT " + call, " is %s and must be %s" % (kind, wanted), "call ")
    fails("text with a NUL inside", db, "SELECT marmot_watch(?)", "a NUL inside", args=("t\0u",))
    fails("text of 2 MiB", db, "SELECT marmot_init(?)", "more than 1 MiB", args=("x" * (2 << 20),))


def values_out_of_range(db):
    fails("negative time-out", db, "SELECT marmot_sync(-1)", "-1 is out of range", "0 to 86400000")
    fails("huge time-out", db, "SELECT marmot_sync(9223372036854775807)", "out of range")
    fails("negative time-out of run", db, "SELECT marmot_run(-1)", "-1 is out of range", "0 to 86400000")
    fails("negative time-out of verify", db, "SELECT marmot_verify(-1)", "-1 is out of range", "0 to 86400000")
    for rule in ("sum", "DELTA", ""):
        fails("unknown rule '%s'" % rule, db, "SELECT marmot_policy('t', 'x', '%s')" % rule, "unknown rule '%s'" % rule,
              "'last', 'delta', 'max' or 'min'")
    for text in ("", "1", "1:", ":1", "0:1", "1:0", "-1:1", "1:-1", " 1:1", "1: 1", "1:1 ", "1:1x", "a:b", "1:2:3",
                 "99999999999:1", "1:99999999999999999999", "9" * 30):
        for function in ("marmot_retry", "marmot_skip"):
            fails("%s of '%s'" % (function, text), db, "SELECT %s('%s')" % (function, text), "'%s' is no message" % text,
                  "<shard>:<sequence>", "blocked_id")
    fails("ids of 64 bits", db, "SELECT marmot_id(64)", "64 bits", "63, or 53")
    fails("clean-up argument", db, "SELECT marmot_cleanup('all')", "'all'", "'discard'")
    for function, form in (("marmot_watch_all", "'%s'"), ("marmot_watch", "'t', '%s'")):
        fails(function + " mode trigger", db, "SELECT %s(%s)" % (function, form % "trigger"), "marmot_init")
        fails(function + " unknown mode", db, "SELECT %s(%s)" % (function, form % "HOOK"), "'HOOK'", "'auto', 'hook' or 'trigger'")


def before_init(db):
    init = "call marmot_init() first"
    for call in ("marmot_watch('t')", "marmot_watch_all()", "marmot_unwatch('t')", "marmot_sync()", "marmot_run()", "marmot_status()",
                 "marmot_node_id()", "marmot_policy('t', 'x', 'max')", "marmot_verify()", "marmot_retry('1:2')",
                 "marmot_skip('1:2')"):
        fails("before marmot_init: " + call, db, "SELECT " + call, init)
    check("marmot_stop without a node is 0", one(db, "SELECT marmot_stop()") == 0, "not 0")
    check("marmot_cleanup of nothing is 1", one(db, "SELECT marmot_cleanup()") == 1, "not 1")
    check("marmot_version", re.fullmatch(r"\d+\.\d+\.\d+", one(db, "SELECT marmot_version()")), "not a version")
    ids = [one(db, "SELECT marmot_id()") for _ in range(100)] + [one(db, "SELECT marmot_id(63)")]
    check("marmot_id grows", ids == sorted(set(ids)), ids)
    small = one(db, "SELECT marmot_id(53)")
    check("marmot_id(53) is exact in JavaScript", 0 < small < 2**53, small)
    check("marmot_tables before marmot_init", db.execute("SELECT name, state FROM marmot_tables").fetchall() ==
          [("t", "unwatched")], db.execute("SELECT * FROM marmot_tables").fetchall())
    for name in ("marmot_streams", "marmot_conflicts", "marmot_metrics"):
        rows = db.execute("SELECT * FROM " + name).fetchall()
        check("%s before marmot_init" % name, rows == [], rows)
    check("nothing of this touched the file", db.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)],
          db.execute("SELECT name FROM sqlite_schema").fetchall())


def bad_configuration(db):
    for name, config, parts in [
            ("malformed JSON", '{"nats":', ()),
            ("unknown key with the nearest", '{"clutser":"x"}', ("clutser", "cluster")),
            ("unknown nested key", '{"nats":{"url":["nats://a:1"]}}', ("nats.url", "urls")),
            ("wrong type", '{"cluster":5}', ("cluster", "text")),
            ("a server program from SQL", '{"nats":{"server_binary":"/bin/true"}}', ("server_binary",)),
            ("a TOML path", "marmot.toml", ("cannot be opened", "TOML", "JSON object")),
            ("empty text", "", ())]:
        fails("configuration: " + name, db, "SELECT marmot_init(?)", *parts, args=(config,))
    check("a refused configuration leaves the file alone",
          db.execute("SELECT name FROM sqlite_schema").fetchall() == [("t",)] and
          one(db, "PRAGMA journal_mode") == "delete", "it changed")


def unfit_databases(ws):
    memory = connect(":memory:")
    fails("in memory", memory, "SELECT marmot_init()", "in memory or temporary", "open a database file")
    check("marmot_tables in memory", memory.execute("SELECT * FROM marmot_tables").fetchall() == [], "rows")
    temporary = connect("")
    fails("temporary", temporary, "SELECT marmot_init()", "in memory or temporary")
    path = os.path.join(ws.dir, "unfit.db")
    db = connect(path)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    db.execute("BEGIN")
    for call in ("marmot_init()", "marmot_sync()", "marmot_stop()", "marmot_cleanup()"):
        fails("inside a transaction: " + call, db, "SELECT " + call, "inside a transaction", "COMMIT")
    db.execute("ROLLBACK")
    db.execute("INSERT INTO t VALUES (1), (2)")
    fails("inside a reading statement", db, "SELECT marmot_init() FROM t", "still reading", "a SELECT of its own")
    fails("inside a writing statement", db, "INSERT INTO t SELECT marmot_watch('t')", "marmot_init() first")
    db.execute("PRAGMA query_only=1")
    fails("query_only", db, "SELECT marmot_init()", "query_only is on", "query_only=0")
    db.execute("PRAGMA query_only=0")
    db.execute("PRAGMA locking_mode=EXCLUSIVE")
    fails("exclusive locking", db, "SELECT marmot_init()", "EXCLUSIVE", "locking_mode=NORMAL")
    db.close()
    reader = connect("file:%s?mode=ro" % path, uri=True)
    fails("read-only", reader, "SELECT marmot_init()", "read-only", "read-write")
    reader.close()
    text = os.path.join(ws.dir, "text.db")
    with open(text, "w") as f:
        f.write("no database " * 100)
    odd = connect(text)
    fails("no database", odd, "SELECT marmot_init()", "no SQLite database", "open another file")
    odd.close()
    nolock = connect("file:%s?nolock=1" % path, uri=True)
    fails("no WAL", nolock, "SELECT marmot_init()", "'delete'", "WAL")
    nolock.close()


def two_inits(db, path):
    first = json.loads(one(db, "SELECT marmot_init(?)", OFFLINE))
    check("marmot_init answers", first["node_id"] == one(db, "SELECT marmot_node_id()") and first["db"] == path and
          {"incarnation", "cluster", "epoch", "state", "why", "since", "url", "warnings"} <= set(first), first)
    check("and puts the file into WAL", one(db, "PRAGMA journal_mode") == "wal", one(db, "PRAGMA journal_mode"))
    for config in ((), (OFFLINE,)):
        again = json.loads(one(db, "SELECT marmot_init(%s)" % ", ".join("?" for _ in config), *config))
        check("the same once more, %d arguments" % len(config), again["node_id"] == first["node_id"] and
              again["incarnation"] == first["incarnation"], again)
    fails("another configuration", db, "SELECT marmot_init('{\"cluster\":\"other\"}')", "another configuration",
          "marmot_stop()")
    fails("malformed, while it runs", db, "SELECT marmot_init('{')")
    check("marmot_status is JSON", json.loads(one(db, "SELECT marmot_status()"))["node_id"] == first["node_id"], "no")
    db.execute("PRAGMA busy_timeout=0")
    warned = json.loads(one(db, "SELECT marmot_init()"))["warnings"]
    check("a busy_timeout of 0 is warned of", any("busy_timeout" in w for w in warned), warned)
    db.execute("PRAGMA busy_timeout=5000")
    warned = json.loads(one(db, "SELECT marmot_init()"))["warnings"]
    check("and only of 0", not any("busy_timeout" in w for w in warned), warned)
    check("marmot_stop", one(db, "SELECT marmot_stop()") == 1 and one(db, "SELECT marmot_stop()") == 0, "not 1, then 0")
    back = json.loads(one(db, "SELECT marmot_init()"))
    check("the stored configuration serves the next start", back["node_id"] == first["node_id"] and
          "127.0.0.1:1" in json.dumps(back["url"]), back)
    one(db, "SELECT marmot_stop()")
    fails("another node_id", db, "SELECT marmot_init('{\"node_id\":7}')", "7", str(first["node_id"]), "leave node_id out")
    one(db, "SELECT marmot_init(?)", OFFLINE)
    told = json.loads(one(db, "SELECT marmot_status()"))
    check("what has just begun asks for nothing", told["remedy"] == "" or told["why"] != "", told)
    fails("sync with nothing watched, no server", db, "SELECT marmot_sync()", "no table is watched", "marmot_watch_all()")
    fails("verify with nothing watched", db, "SELECT marmot_verify()", "nothing to compare", "marmot_watch_all()")
    return first


def watching(db):
    db.execute("CREATE TABLE Books(id INTEGER PRIMARY KEY, title)")
    db.execute("CREATE TABLE loose(id INTEGER PRIMARY KEY, twice AS (id * 2), x)")
    db.execute("CREATE VIEW seen AS SELECT 1")
    db.execute("CREATE VIRTUAL TABLE words USING fts5(x)")
    fails("missing table", db, "SELECT marmot_watch('nosuchtable')", "no table 'nosuchtable'", "marmot_tables")
    fails("missing table, nearly right", db, "SELECT marmot_watch('Bokos')", "did you mean 'Books'?")
    fails("missing table to unwatch", db, "SELECT marmot_unwatch('nosuchtable')", "no table 'nosuchtable'")
    fails("table that cannot be captured", db, "SELECT marmot_watch('loose')", "'loose' cannot be watched: ",
          "move it to the end")
    fails("a view", db, "SELECT marmot_watch('seen')", "'seen' cannot be watched: ")
    for name in ("sqlite_schema", "__marmot__outbox", ""):
        fails("internal name '%s'" % name, db, "SELECT marmot_watch('%s')" % name, "internal name")
    check("refusals leave no transaction", not db.in_transaction and one(db, "SELECT count(*) FROM __marmot__table") == 0,
          "one is open, or rows stayed")
    check("marmot_watch", one(db, "SELECT marmot_watch('BOOKS')") == 1, "not 1")
    check("marmot_watch again", one(db, "SELECT marmot_watch('Books', 'auto')") == 1, "not 1")
    fails("inside a writing statement", db, "INSERT INTO t(x) SELECT marmot_watch('t')", "is writing", "a SELECT of its own")
    path = db.execute("PRAGMA database_list").fetchone()[2]
    other = connect(path, load=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, other.close).start()
    db.execute("BEGIN")
    check("a transaction that begins with it waits for the lock", one(db, "SELECT marmot_watch('t')") == 1, "not 1")
    fails("a refusal in a transaction", db, "SELECT marmot_watch('loose')", "cannot be watched")
    check("leaves that transaction open", db.in_transaction, "it ended")
    db.execute("ROLLBACK")
    state = dict(db.execute("SELECT name, state FROM marmot_tables"))
    check("a roll-back takes marmot_watch back", state["t"] == "unwatched", state)
    check("marmot_watch_all counts", one(db, "SELECT marmot_watch_all('auto')") == 2, "not 2")
    rows = {r[0]: r[1:] for r in db.execute("SELECT name, capture, key, state, why FROM marmot_tables")}
    check("marmot_tables", set(rows) == {"Books", "loose", "t", "words"} and rows["Books"][:2] == ("auto", "id") and
          rows["loose"][0] == "none" and rows["loose"][2] == "unsupported" and "move it" in rows["loose"][3], rows)
    check("a virtual table is named there, too", rows["words"] == ("none", None, "unsupported",
          "a virtual table: watch the ordinary tables that feed it"), rows["words"])
    check("marmot_unwatch", one(db, "SELECT marmot_unwatch('t')") == 1 and one(
        db, "SELECT state FROM marmot_tables WHERE name = 't'") == "unwatched", "still watched")
    each = "SELECT marmot_watch(name) FROM sqlite_schema WHERE name IN ('t', 'Books')"
    db.execute("BEGIN IMMEDIATE")
    many = db.execute(each).fetchall()
    db.execute("COMMIT")
    check("marmot_watch inside a reading statement", many == [(1,), (1,)], many)
    stale = db.execute(each)  # the first row is asked for here
    with contextlib.closing(connect(path, load=False)) as other:
        other.execute("PRAGMA user_version = 7")
    try:
        why = "no error, but %r" % stale.fetchall()
    except sqlite3.OperationalError as e:
        why = str(e)
    check("and where another connection writes meanwhile, what to do is said",
          "marmot_watch: " in why and "began to read it" in why and "BEGIN IMMEDIATE before it" in why, why)
    with contextlib.closing(connect("file:%s?mode=ro" % path, uri=True)) as reader:
        for call in ("watch('t')", "watch_all()", "unwatch('t')", "policy('Books', 'title', 'max')", "verify(0)"):
            fails("read-only: marmot_" + call, reader, "SELECT marmot_" + call, "read-only", "one that may write")
    db.execute("PRAGMA query_only=1")
    fails("query_only: marmot_watch", db, "SELECT marmot_watch('t')", "query_only is on", "query_only=0")
    db.execute("PRAGMA query_only=0")
    db.execute("DROP TABLE words")
    db.execute("CREATE TABLE brief(x)")
    one(db, "SELECT marmot_watch('brief')")
    db.execute("DROP TABLE brief")
    gone = db.execute("SELECT capture, why FROM marmot_tables WHERE name = 'brief'").fetchall()
    check("and one that is gone", gone == [("none", "there is no such table in this database")], gone)
    told = "SELECT json_extract(value, '$.capture', '$.why') FROM json_each(marmot_status(), '$.tables')" \
           " WHERE json_extract(value, '$.name') = 'brief'"
    check("so does the status", wait_until(lambda: db.execute(told).fetchall() == [('["none","%s"]' % gone[0][1],)], 5,
                                           "the status tells of a table that is gone"), "no")
    one(db, "SELECT marmot_unwatch('brief')")


def controls(db):
    """How many control messages of policies and verify calls wait in the outbox."""
    return one(db, "SELECT count(*) FROM __marmot__outbox WHERE kind = 1 AND substr(data, 1, 1) IN (x'50', x'56')")


def policies(db):
    db.execute("CREATE TABLE sums(id INTEGER NOT NULL, other TEXT NOT NULL, total, held AS (total) STORED, twice AS (total * 2), "
               "PRIMARY KEY(id, other))")
    one(db, "SELECT marmot_unwatch('sums')")  # all new tables are watched, some time later
    call = "SELECT marmot_policy(%s)"
    fails("policy of a table that is not watched", db, call % "'sums', 'total', 'delta'", "'sums' is not watched",
          "marmot_watch('sums') first")
    one(db, "SELECT marmot_watch('sums')")
    fails("policy of a missing table", db, call % "'summs', 'total', 'delta'", "no table 'summs'", "did you mean 'sums'?")
    fails("policy of an internal table", db, call % "'__marmot__outbox', 'id', 'max'", "internal name")
    fails("policy of a view", db, call % "'seen', '1', 'max'", "not watched")
    fails("policy of a missing column", db, call % "'sums', 'price', 'delta'", "no column 'price'", "table_info")
    fails("policy of a missing column, nearly right", db, call % "'sums', 'totla', 'delta'", "did you mean 'total'?")
    for column in ("id", "OTHER"):
        fails("policy of a key column " + column, db, call % ("'sums', '%s', 'max'" % column), "in the key",
              "outside of the key")
    for column in ("twice", "HELD"):
        fails("policy of a generated column " + column, db, call % ("'sums', '%s', 'max'" % column), "is generated",
              "computed from")
    db.execute("CREATE TABLE keyless(total)")
    one(db, "SELECT marmot_watch('keyless')")
    fails("policy of a table without a key", db, call % "'keyless', 'total', 'delta'", "has no key", "PRIMARY KEY")
    fails("policy inside a writing statement", db, "INSERT INTO t(x) SELECT marmot_policy('sums', 'total', 'max')",
          "is writing", "a SELECT of its own")
    check("refusals leave nothing behind", controls(db) == 0 and not db.in_transaction, controls(db))
    db.execute("BEGIN")
    check("marmot_policy", one(db, call % "'SUMS', 'Total', 'delta'") == 1, "not 1")
    db.execute("ROLLBACK")
    check("a roll-back takes it back", controls(db) == 0, controls(db))
    for rule in ("last", "delta", "max", "min"):
        one(db, call % ("'sums', 'total', '%s'" % rule))
    rows = db.execute("SELECT DISTINCT data FROM __marmot__outbox WHERE kind = 1 AND substr(data, 1, 1) = x'50'").fetchall()
    check("each rule waits for the log", sorted(r[0] for r in rows) == [b"Psums\0total\0%c" % k for k in range(4)], rows)
    one(db, "SELECT marmot_unwatch('sums')")
    fails("policy of a table that is unwatched again", db, call % "'sums', 'total', 'delta'", "not watched")
    one(db, "SELECT marmot_unwatch('keyless')")
    db.execute("DROP TABLE sums")
    db.execute("DROP TABLE keyless")


def verifying(db):
    db.execute("BEGIN")
    fails("verify in a transaction", db, "SELECT marmot_verify()", "inside a transaction", "COMMIT first")
    db.execute("ROLLBACK")
    db.execute("INSERT INTO t VALUES (100, 1)")
    before = controls(db)
    fails("verify in a reading statement", db, "SELECT marmot_verify(), x FROM t", "still reading", "a SELECT of its own")
    check("refusals ask nobody", controls(db) == before, controls(db))
    self = one(db, "SELECT marmot_node_id()")
    answer = json.loads(one(db, "SELECT marmot_verify(0)"))
    check("without a server this node itself is silent", answer == [{"node": self, "shard": 1, "silent": True}], answer)
    check("the call waits in the outbox", controls(db) == before + 1, controls(db))
    db.execute("DELETE FROM t WHERE id = 100")
    fails("retry of what does not block", db, "SELECT marmot_retry('1:7')", "1:7 does not block", "blocked_id")
    fails("skip in a shard that does not exist", db, "SELECT marmot_skip('9:7')", "9:7 does not block")
    names = [r[0] for r in db.execute("SELECT name FROM marmot_metrics WHERE typeof(value) = 'integer' AND help > ''")]
    check("marmot_metrics", {"up", "pending_transactions", "stream_lag_messages", "outbox_bytes"} <= set(names), names)
    streams = db.execute("SELECT shard, position, \"end\", state FROM marmot_streams").fetchall()
    check("marmot_streams", streams == [(1, 0, 0, "waiting")], streams)
    # What is told may be a quarter of a second old.
    pending = "SELECT value FROM marmot_metrics WHERE name = 'pending_transactions'"
    check("pending is counted", wait_until(lambda: one(db, pending) > 0, 5, "pending in the metrics"), "0")
    db.execute("INSERT INTO __marmot__conflict(shard, seq, node, at, kind, name, key, lost, won) "
               "VALUES (1, 9, -5, 0, 'update', 't', '{}', '{}', '{}'), (2, 10, 5, 1000, 'unique', 't', '{}', '{}', '{}')")
    rows = db.execute("SELECT shard, seq, node, time, kind, \"table\" FROM marmot_conflicts WHERE seq >= 9").fetchall()
    check("marmot_conflicts, newest first, numbers as numbers",
          rows == [(2, 10, 5, "1970-01-01T00:00:01.000Z", "unique", "t"),
                   (1, 9, -5, "1970-01-01T00:00:00.000Z", "update", "t")], rows)
    kinds = db.execute("SELECT labels, value FROM marmot_metrics WHERE name = 'conflicts'").fetchall()
    check("conflicts are counted by kind", kinds == [('kind="unique"', 1), ('kind="update"', 1)], kinds)
    db.execute("DELETE FROM __marmot__conflict")
    message = error(db, "DELETE FROM marmot_conflicts")
    check("they cannot be written", "may not be modified" in message, message)


def cleaning_up(db, path):
    db.execute("INSERT INTO t VALUES (1, 'pending')")
    fails("clean-up with pending changes", db, "SELECT marmot_cleanup()", "not in the log yet", "marmot_sync()",
          "'discard'")
    count = re.search(r": (\d+) captured", error(db, "SELECT marmot_cleanup()"))
    check("it counts them", count is not None and int(count.group(1)) >= 2, error(db, "SELECT marmot_cleanup()"))
    check("and changes nothing", one(db, "SELECT marmot_node_id()") != 0 and
          json.loads(one(db, "SELECT marmot_status()"))["node_id"] != 0, "the node is gone")
    check("marmot_sync times out with 0", one(db, "SELECT marmot_sync(50)") == 0, "not 0")
    check("discard", one(db, "SELECT marmot_cleanup('discard')") == 1, "not 1")
    check("leaves nothing in the schema", one(
        db, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%marmot%'") == 0, "something")
    check("nor beside the file", not [n for n in os.listdir(os.path.dirname(path)) if "-marmot" in n],
          os.listdir(os.path.dirname(path)))
    check("nor in the rows", db.execute("SELECT * FROM t").fetchall() == [(1, "pending")], "other rows")
    db.execute("INSERT INTO t VALUES (2, 'after')")
    fails("after the clean-up", db, "SELECT marmot_status()", "marmot_init() first")


def incarnation(db):
    return one(db, "SELECT incarnation FROM __marmot__head")


def identities(ws, db, path, first):
    fresh = json.loads(one(db, "SELECT marmot_init(?)", OFFLINE))
    check("after a clean-up it is a new node", fresh["node_id"] != first["node_id"], fresh)
    one(db, "SELECT marmot_watch('t')")
    before = incarnation(db)
    db.close()
    copy = os.path.join(ws.dir, "copy.db")
    shutil.copy(path, copy)
    other = connect(copy)
    fails("a copied file without configuration", other, "SELECT marmot_init()", path, copy, "once more")
    answer = json.loads(one(other, "SELECT marmot_init(?)", OFFLINE))
    check("a copied file takes a new incarnation", answer["node_id"] == fresh["node_id"] and
          incarnation(other) not in (0, before), answer)
    other.close()
    db = connect(path)
    one(db, "SELECT marmot_init()")
    check("its original keeps its own", incarnation(db) == before, "it moved")
    db.close()


def secrets(ws):
    path = os.path.join(ws.dir, "secret.db")
    db = connect(path)
    one(db, "SELECT marmot_init(?)", '{"nats":{"urls":["nats://127.0.0.1:1"],"user_name":"u","user_password":"hush"}}')
    kept = path + "-marmot"
    check("secrets lie beside the file, 0600", stat.S_IMODE(os.stat(kept).st_mode) == 0o600, oct(os.stat(kept).st_mode))
    everything = one(db, "SELECT marmot_status()") + one(db, "SELECT marmot_init()") + "".join(
        str(r) for r in db.execute("SELECT * FROM __marmot__meta"))
    check("and nowhere else", "hush" not in everything, everything)
    db.close()
    os.rename(kept, kept + ".away")
    db = connect(path)
    fails("a missing secret is named", db, "SELECT marmot_init()", "user_password")
    os.rename(kept + ".away", kept)
    check("a found one serves", json.loads(one(db, "SELECT marmot_init()"))["node_id"] != 0, "no")
    check("clean-up takes it away", one(db, "SELECT marmot_cleanup('discard')") == 1 and not os.path.exists(kept), "left")
    db.close()


def no_back_doors(ws):
    path = os.path.join(ws.dir, "doors.db")
    db = connect(path)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v DEFAULT (marmot_id()))")
    for name in ("marmot_init", "marmot_watch_all", "marmot_sync", "marmot_status", "marmot_stop", "marmot_cleanup",
                 "marmot_policy", "marmot_verify", "marmot_retry", "marmot_skip"):
        db.execute("CREATE VIEW v_%s AS SELECT %s() AS x" % (name, name))
        message = error(db, "SELECT * FROM v_%s" % name)
        check("%s is not for views" % name, "unsafe use" in message, message)
    db.execute("CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT marmot_stop(); END")
    message = error(db, "INSERT INTO t(id) VALUES (1)")
    check("nor for triggers", "unsafe use" in message, message)
    db.execute("DROP TRIGGER r")
    db.execute("PRAGMA trusted_schema=OFF")
    db.execute("INSERT INTO t(id) VALUES (1)")
    check("marmot_id serves as a default of an untrusted schema", one(db, "SELECT v FROM t") > 2**40, "no id")
    db.close()


def main():
    with Workspace() as ws:
        path = os.path.realpath(os.path.join(ws.dir, "a.db"))
        db = connect(path)
        db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        argument_counts(db)
        argument_types(db)
        values_out_of_range(db)
        before_init(db)
        bad_configuration(db)
        unfit_databases(ws)
        first = two_inits(db, path)
        watching(db)
        policies(db)
        verifying(db)
        cleaning_up(db, path)
        identities(ws, db, path, first)
        secrets(ws)
        no_back_doors(ws)
    finish()


main()
