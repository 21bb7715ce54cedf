"""One process and this library: which SQLite it accepts, which connections it
knows, threads that start and stop at once, fork, and the ends of connections
and processes.
marmot-test: limit=180
"""
import ctypes
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

OFFLINE = '{"nats":{"urls":["nats://127.0.0.1:1"]}}'
SYSTEM_SQLITE = "libsqlite3.so.0"


def connect(path, load=True):
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    if load:
        db.enable_load_extension(True)
        db.load_extension(EXTENSION)
    return db


def one(db, sql, *args):
    return db.execute(sql, args).fetchone()[0]


def error(db, sql):
    try:
        return "no error, but %r" % (db.execute(sql).fetchall(),)
    except sqlite3.Error as e:
        return str(e)


def captured(db):
    return one(db, 'SELECT "__marmot__connection"()')


LAST = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[2], isolation_level=None)
db.enable_load_extension(True)
db.load_extension(sys.argv[1])
db.execute("SELECT marmot_init()").fetchall()
db.execute("SELECT marmot_sync()").fetchall()
db.execute("INSERT INTO t VALUES (?, 'last')", (int(sys.argv[3]),))
%s
"""

# Opens the library by itself, with RTLD_LOCAL as SQLite too; the connection has no mutexes, and is closed
# while a statement is half read.
UNGUARDED = """
import ctypes, sys
sqlite, marmot = ctypes.CDLL(sys.argv[3]), ctypes.CDLL(sys.argv[1])
assert sqlite.sqlite3_auto_extension(marmot.sqlite3_marmot_init) == 0
db, st = ctypes.c_void_p(), ctypes.c_void_p()
assert sqlite.sqlite3_open_v2(sys.argv[2].encode(), ctypes.byref(db), 0x2 | 0x8000, None) == 0  # READWRITE, NOMUTEX
assert sqlite.sqlite3_busy_timeout(db, 5000) == 0
sqlite.sqlite3_db_mutex.restype = sqlite.sqlite3_errmsg.restype = ctypes.c_char_p
assert sqlite.sqlite3_db_mutex(db) is None
rc = sqlite.sqlite3_exec(db, b"SELECT marmot_init(); INSERT INTO t VALUES (-1, 'x'), (-2, 'x'); BEGIN;"
                         b"UPDATE t SET x = 'y' WHERE id = -1; DELETE FROM t WHERE id = -2; COMMIT", None, None, None)
assert rc == 0, sqlite.sqlite3_errmsg(db)
sqlite.sqlite3_prepare_v2(db, b"INSERT INTO t VALUES (-3, 'z'), (-4, 'z') RETURNING id", -1, ctypes.byref(st), None)
assert sqlite.sqlite3_step(st) == 100, sqlite.sqlite3_errmsg(db)
assert sqlite.sqlite3_close_v2(db) == 0 and sqlite.sqlite3_finalize(st) == 0
"""


def drains(ws):
    """What a process wrote last is sent before it ends, when it is connected."""
    nats = NatsServer(ws).start()
    schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, x)"
    there = Node(ws, "there", urls=nats.url, schema=schema)
    path = os.path.join(ws.dir, "drain.db")
    db = connect(path)
    db.execute(schema)
    one(db, "SELECT marmot_init(?)", json.dumps({"nats": {"urls": [nats.url]}}))
    one(db, "SELECT marmot_watch_all()")
    check("two nodes join", one(db, "SELECT marmot_sync()") == 1, one(db, "SELECT marmot_status()"))
    db.close()
    subprocess.run([PYTHON, "-c", UNGUARDED, EXTENSION, path, SYSTEM_SQLITE], timeout=60, check=True)
    wanted = [(-4, "z"), (-3, "z"), (-1, "y")]
    wait_until(lambda: there.sql("SELECT * FROM t ORDER BY id") == wanted, 10, "what had no mutexes is there")
    ok("dlopen with RTLD_LOCAL, a connection without mutexes, sqlite3_close_v2 in a statement: all of it arrives")
    ends = [("a close", "db.close()"), ("an end", "keep = db"), ("exit()", "import ctypes; ctypes.CDLL(None).exit(0)")]
    for number, (name, end) in enumerate(ends):
        subprocess.run([PYTHON, "-c", LAST % end, EXTENSION, path, str(number)], timeout=60, check=True)
        wait_until(lambda: there.sql("SELECT x FROM t WHERE id = ?", number), 10, "the last row of " + name)
        ok("the last row before %s arrives" % name)


class Library:
    """One copy of SQLite, reached by ctypes."""

    def __init__(self, path):
        self.lib = ctypes.CDLL(path)
        self.lib.sqlite3_errmsg.restype = ctypes.c_char_p
        self.db = ctypes.c_void_p()

    def open(self, path):
        rc = self.lib.sqlite3_open(path.encode(), ctypes.byref(self.db))
        assert rc == 0, rc
        self.lib.sqlite3_busy_timeout(self.db, int(5000 * SLOW))  # it writes beside a replication thread
        self.lib.sqlite3_enable_load_extension(self.db, 1)

    def load(self):
        message = ctypes.c_char_p()
        rc = self.lib.sqlite3_load_extension(self.db, EXTENSION.encode(), None, ctypes.byref(message))
        return rc, (message.value or b"").decode()

    def close(self):
        return self.lib.sqlite3_close(self.db)

    def routines(self):
        """The address of the table that this copy hands to extensions."""
        seen = []
        entry_type = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        entry = entry_type(lambda db, message, api: seen.append(api) or 0)
        self.lib.sqlite3_auto_extension(entry)
        probe = ctypes.c_void_p()
        self.lib.sqlite3_open(b":memory:", ctypes.byref(probe))
        self.lib.sqlite3_close(probe)
        self.lib.sqlite3_cancel_auto_extension(entry)
        return seen[0]


def second_sqlite(ws):
    """In a process of its own: the first SQLite goes on, the second is refused."""
    found = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    path = next(line.split("=>")[1].strip() for line in found.splitlines() if SYSTEM_SQLITE in line)
    copy = os.path.join(ws.dir, "another.so")
    shutil.copy(os.path.realpath(path), copy)
    first = connect(os.path.join(ws.dir, "first.db"))
    other = Library(copy)
    other.open(os.path.join(ws.dir, "second.db"))
    rc, message = other.load()
    check("a second SQLite is refused", rc != 0 and "another SQLite" in message and "one SQLite only" in message,
          "%d %s" % (rc, message))
    check("its connection goes on and closes", other.close() == 0, "it does not close")
    check("the first keeps working", one(first, "SELECT marmot_version()") != "", "no")
    first.close()


def application_hook(ws):
    """An application that uses the preupdate hook keeps it."""
    system = Library(SYSTEM_SQLITE)
    path = os.path.join(ws.dir, "hooked.db")
    system.open(path)
    run = lambda sql: system.lib.sqlite3_exec(system.db, sql.encode(), None, None, None)  # noqa: E731
    run("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    seen = []
    hook_type = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p,
                                 ctypes.c_int64, ctypes.c_int64)
    hook = hook_type(lambda *a: seen.append(a[4]))
    system.lib.sqlite3_preupdate_hook(system.db, hook, None)
    rc, message = system.load()
    check("loading beside an application's hook", rc == 0, message)
    rc = run("SELECT marmot_init('%s')" % OFFLINE)
    check("marmot_init leaves capture to triggers there", rc == 0, system.lib.sqlite3_errmsg(system.db).decode())
    rc = run("SELECT marmot_stop(); SELECT marmot_init('{\"capture\":\"hook\",\"nats\":{\"urls\":[\"nats://127.0.0.1:9\"]}}')")
    message = system.lib.sqlite3_errmsg(system.db).decode()
    check("and refuses where the hook alone is wanted", rc == 1 and "uses the preupdate hook" in message and
          "take it off" in message, "%d %s" % (rc, message))
    run("INSERT INTO t VALUES (1)")
    check("and the application's hook is untouched", seen.count(b"t") == 1, seen)
    system.lib.sqlite3_preupdate_hook(system.db, None, None)
    check("without it marmot_init serves", run("SELECT marmot_init('%s')" % OFFLINE) == 0,
          system.lib.sqlite3_errmsg(system.db).decode())
    check("and takes a table", run("SELECT marmot_watch('t'); INSERT INTO t VALUES (2)") == 0,
          system.lib.sqlite3_errmsg(system.db).decode())
    system.close()
    db = connect(path, load=False)
    # By the hook, or noted by a trigger and not moved to the outbox yet.
    db.execute("BEGIN")  # one look at both: it may be on its way from one to the other
    seen = transactions(db), one(db, "SELECT count(*) FROM __marmot__log")
    check("and captures", sum(seen) == 1, seen)
    db.close()


def odd_sqlites():
    """The table of routines with single members replaced."""
    system = Library(SYSTEM_SQLITE)
    address = system.routines()
    count = 200
    table = (ctypes.c_void_p * count).from_address(address)
    extension = ctypes.CDLL(EXTENSION)
    number = ctypes.CFUNCTYPE(ctypes.c_int)

    def refused(member, answer):
        wanted = ctypes.cast(getattr(system.lib, member), ctypes.c_void_p).value
        fake = (ctypes.c_void_p * count)(*table)
        function = number(lambda: answer)
        fake[list(table).index(wanted)] = ctypes.cast(function, ctypes.c_void_p).value
        message = ctypes.c_char_p()
        db = ctypes.c_void_p()
        system.lib.sqlite3_open(b":memory:", ctypes.byref(db))
        rc = extension.sqlite3_marmot_init(db, ctypes.byref(message), fake)
        system.lib.sqlite3_close(db)
        return rc, (message.value or b"").decode()

    rc, message = refused("sqlite3_libversion_number", 3036000)
    check("SQLite 3.36 is refused", rc == 1 and "too old" in message and "3.37.0" in message, message)
    rc, message = refused("sqlite3_threadsafe", 0)
    check("a SQLite without threads is refused", rc == 1 and "single-threaded" in message, message)
    db = connect(":memory:")
    check("after both the right one loads", one(db, "SELECT marmot_version()") != "", "no")
    db.close()


def connections(ws):
    path = os.path.join(ws.dir, "conns.db")
    early = connect(path, load=False)
    loaded = connect(path)
    loaded.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    check("every connection that loads is captured", captured(loaded) == "captured", captured(loaded))
    check("loading twice is fine", (loaded.load_extension(EXTENSION), captured(loaded))[1] == "captured", "no")
    one(loaded, "SELECT marmot_init(?)", OFFLINE)
    one(loaded, "SELECT marmot_watch('t')")
    check("a connection from before the load is not known", "no such function" in error(early, "SELECT marmot_id()"), "it is")
    late = connect(path, load=False)
    check("one that opens later is, by itself", captured(late) == "captured", error(late, "SELECT marmot_status()"))
    check("and has a busy_timeout of 5 s", one(late, "PRAGMA busy_timeout") == 5000, one(late, "PRAGMA busy_timeout"))
    before = transactions(late)
    late.execute("INSERT INTO t VALUES (1, 'a')")
    check("and its changes are captured", transactions(late) == before + 1, "no row")
    stranger = connect(os.path.join(ws.dir, "other.db"), load=False)
    check("a connection to another file is left alone", "no such function" in error(stranger, "SELECT marmot_id()"), "no")
    link = os.path.join(ws.dir, "link.db")
    os.symlink(path, link)
    aliased = connect(link)
    check("a symbolic link is the same database",
          json.loads(one(aliased, "SELECT marmot_init()"))["db"] == os.path.realpath(path), "another one")
    for db in (early, loaded, stranger, aliased):
        db.close()
    check("the last connection still has its node", json.loads(one(late, "SELECT marmot_status()"))["node_id"] ==
          one(late, "SELECT marmot_node_id()"), "it stopped")
    late.close()
    again = connect(path)
    check("the close of the last one stopped it", "marmot_init() first" in error(again, "SELECT marmot_status()"),
          error(again, "SELECT marmot_status()"))
    again.close()
    check("the write-ahead log is gone after the last close", not os.path.exists(path + "-wal"), "it is there")


def shared_cache(ws):
    """Two connections of one cache, closed in either order."""
    path = os.path.join(ws.dir, "shared.db")
    for last in (0, 1):
        pair = [sqlite3.connect("file:%s?cache=shared" % path, uri=True, isolation_level=None) for _ in range(2)]
        for db in pair:
            db.enable_load_extension(True)
            db.load_extension(EXTENSION)
        pair[0].execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x)")
        one(pair[0], "SELECT marmot_init(?)", OFFLINE.replace("{", '{"capture":"hook",', 1))
        one(pair[1], "SELECT marmot_watch('t')")
        before = transactions(pair[0])
        for k in range(20):
            pair[k % 2].execute("INSERT INTO t(x) VALUES (?)", (k,))
        check("a shared cache: both connections are captured", transactions(pair[1]) == before + 20, transactions(pair[1]))
        check("and none of their commits counts as foreign",
              one(pair[last], "SELECT value FROM marmot_metrics WHERE name = 'foreign_commits_total'") == 0, "one does")
        pair[1 - last].close()
        check("the one that is left goes on", json.loads(one(pair[last], "SELECT marmot_status()"))["outbox"] is not None, "no")
        pair[last].execute("INSERT INTO t(x) VALUES (-1)")
        pair[last].close()
        check("the last close ends all of it", not os.path.exists(path + "-wal"), "the write-ahead log is there")


def threads(ws):
    """Connections of 8 threads come, init, write, stop and go at once."""
    path = os.path.join(ws.dir, "threads.db")
    db = connect(path)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    one(db, "SELECT marmot_init(?)", OFFLINE)
    one(db, "SELECT marmot_watch_all()")
    problems = []
    written = []

    def run(number):
        try:
            for k in range(12):
                mine = connect(path, load=k % 2 == 0)
                mine.execute("PRAGMA busy_timeout=30000")
                if k % 3 == 0:
                    one(mine, "SELECT marmot_init()")
                mine.execute("INSERT INTO t VALUES (?, ?)", (number * 1000 + k, "x"))
                written.append(number * 1000 + k)
                if k % 4 == 3:
                    message = error(mine, "SELECT marmot_stop()")
                    if "no error" not in message and "right now" not in message:
                        problems.append(message)
                error(mine, "SELECT marmot_status()")
                mine.close()
        except Exception as e:  # noqa: BLE001 - whatever it is, it is the finding
            problems.append(repr(e))

    workers = [threading.Thread(target=run, args=(n,)) for n in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(120)
    check("threads that init, write, stop and close at once", not problems and not any(w.is_alive() for w in workers),
          problems or "one hangs")
    rows = one(db, "SELECT count(*) FROM t")
    captures = transactions(db)
    check("all of their changes are captured", rows == len(written) == captures == 96,
          "%d rows, %d written, %d captured" % (rows, len(written), captures))
    db.close()


def come_and_go(ws):
    """No connection stays: the node starts and ends all the time, never twice at once."""
    path = os.path.join(ws.dir, "go.db")
    db = connect(path)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    node = json.loads(one(db, "SELECT marmot_init(?)", OFFLINE))["node_id"]
    one(db, "SELECT marmot_watch_all()")
    db.close()
    problems = []

    def run():
        try:
            for _ in range(8):
                mine = connect(path)
                mine.execute("PRAGMA busy_timeout=30000")
                answer = json.loads(one(mine, "SELECT marmot_init()"))
                if answer["node_id"] != node or answer["state"] == "standby":
                    problems.append(answer)
                mine.execute("INSERT INTO t(x) VALUES ('y')")
                mine.close()
        except Exception as e:  # noqa: BLE001 - whatever it is, it is the finding
            problems.append(repr(e))

    workers = [threading.Thread(target=run) for _ in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(120)
    check("nodes that come and go at once", not problems and not any(w.is_alive() for w in workers),
          problems[:3] or "one hangs")
    db = connect(path, load=False)
    check("each change of theirs is captured", one(db, "SELECT count(*) FROM t") == 48 == transactions(db), "not all")
    db.close()


def forks(ws):
    path = os.path.join(ws.dir, "fork.db")
    db = connect(path)
    db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
    one(db, "SELECT marmot_init(?)", OFFLINE)
    one(db, "SELECT marmot_watch_all()")
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        seen = {}
        try:
            seen["inherited"] = error(db, "SELECT marmot_status()")
            own = connect(path)
            own.execute("PRAGMA busy_timeout=5000")
            seen["before"] = error(own, "SELECT marmot_status()")
            seen["captured"] = captured(own)
            own.execute("INSERT INTO t VALUES (1, 'of the child')")
            seen["init"] = error(own, "SELECT marmot_init()")
            later = connect(path, load=False)
            seen["later"] = captured(later)
            later.close()
            own.close()
        except Exception as e:  # noqa: BLE001 - the parent reports it
            seen["exception"] = repr(e)
        os.write(into, json.dumps(seen).encode())
        os._exit(0)
    os.close(into)
    try:
        wait_until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, 30, "the child of a fork ends")
    except Timeout:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    seen = json.loads(os.read(out, 1 << 16) or b"{}")
    os.close(out)
    check("an inherited connection is refused", "forked" in seen.get("inherited", ""), seen)
    check("a new connection of the child starts without a node", "marmot_init() first" in seen.get("before", ""), seen)
    check("is captured", seen.get("captured") == "captured" and seen.get("later") == "captured", seen)
    check("and may call marmot_init", "node_id" in seen.get("init", "") and "no error" in seen["init"], seen)
    check("the child's change lies in the outbox", transactions(db) == 1, "it does not")
    check("the parent goes on", json.loads(one(db, "SELECT marmot_status()"))["node_id"] ==
          one(db, "SELECT marmot_node_id()"), "it does not")
    db.close()


EXIT = """
import os, sqlite3, sys
db = sqlite3.connect(sys.argv[2], isolation_level=None)
db.enable_load_extension(True)
db.load_extension(sys.argv[1])
db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, x)")
db.execute("SELECT marmot_init(?)", (sys.argv[3],)).fetchall()
db.execute("SELECT marmot_watch_all()").fetchall()
db.execute("INSERT INTO t(x) VALUES ('end')")
%s
"""


def exits(ws):
    """A process ends soon, and quietly, whichever way it goes."""
    ends = {"after a close": ("db.close()", 0), "without a close": ("keep = db", 0),
            "in exit()": ("import ctypes; ctypes.CDLL(None).exit(7)", 7), "in _exit()": ("os._exit(8)", 8),
            "inside a transaction": ("db.execute('BEGIN'); db.execute('INSERT INTO t(x) VALUES (0)')", 0)}
    for name, (end, code) in ends.items():
        path = os.path.join(ws.dir, "exit.db")
        ran = subprocess.run([PYTHON, "-c", EXIT % end, EXTENSION, path, OFFLINE], capture_output=True, text=True, timeout=60,
                             check=False)
        check("a process that ends " + name, ran.returncode == code, "%d %s" % (ran.returncode, ran.stderr))
    codes = []
    for k in range(30):
        early = os.path.join(ws.dir, "early.db")
        ran = subprocess.run([PYTHON, "-c", EXIT % ("import time, ctypes; time.sleep(%g); ctypes.CDLL(None).exit(7)" % (
            k * 0.0004)), EXTENSION, early, OFFLINE], capture_output=True, text=True, timeout=60, check=False)
        codes.append(ran.returncode)
    check("processes that end while their node starts", codes == [7] * 30, codes)
    db = connect(path, load=False)
    rows, captures = one(db, "SELECT count(*) FROM t"), transactions(db)
    check("nothing captured was lost", rows == captures == len(ends), "%d rows, %d captured" % (rows, captures))
    check("and the file is sound", one(db, "PRAGMA integrity_check") == "ok", "it is not")
    db.close()


def main():
    odd_sqlites()
    with Workspace() as ws:
        second_sqlite(ws)
        application_hook(ws)
        connections(ws)
        shared_cache(ws)
        threads(ws)
        come_and_go(ws)
        if "tsan" in os.environ.get("LD_PRELOAD", ""):
            note("the thread sanitizer ends children that start threads: no forks with it but those of forks.py")
        else:
            forks(ws)
        exits(ws)
        drains(ws)
    finish()


main()
