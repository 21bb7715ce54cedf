"""Helpers for tests that run whole clusters: real nats-servers, real host
processes, kill -9.

    from marmot_test import *          # the runner puts test/lib on PYTHONPATH

    with Workspace() as ws:            # a folder of its own, removed at the end
        nats = NatsServer(ws).start()  # real server, store in the folder
        a = Node(ws, "a", urls=nats.url, schema="CREATE TABLE t(id INTEGER PRIMARY KEY, x)")
        b = Node(ws, "b", urls=nats.url, schema=a.schema)
        a.sql("INSERT INTO t VALUES (1, 'one')")
        wait_equal([a, b])             # whole databases, at most 20 s
        ok("an insert arrives")
    finish()

Reporting: ok(name), not_ok(name, why), check(name, condition, why); bar(name,
condition, why) is a check of how long something took, or of what else a
sanitizer changes: it is judged in plain builds only (PLAIN), elsewhere shown. finish()
ends the program, non-zero after any not_ok. An exception that nobody catches
is reported as one not_ok under the program's name.

Workspace: everything it started (servers, nodes) is killed when the block ends;
XDG_STATE_HOME points into it. After a failure the folder stays when
MARMOT_TEST_KEEP is set. No wait is a guess: wait_until(predicate, seconds, what)
polls and raises Timeout that names `what`.

NatsServer(ws, port=None, config="", jetstream=True): start() waits until it
answers; stop() is SIGTERM, kill() is SIGKILL, restart() starts it again on the
same port and store; pause()/resume() are SIGSTOP/SIGCONT, and the former waits until it stands still.

Node(ws, name, urls=None, config=None, schema=None, watch=True, db=None, extension=None):
a worker process (node_worker.py) with connection 0 open. Unless config is False,
it has called marmot_init(config) and, with watch, marmot_watch_all(). urls is a
short form of config={"nats": {"urls": [urls]}}; with neither, the embedded server
of the Workspace is used (ws.bind_address). Calls:
  sql(text, *args, conn=0) -> list of tuples; raises SqlError
  one(text, *args)         -> first column of the first row
  many(text, rows), txn([(text, args), ..]), open(conn), close(conn)
  each([(text, args), ..]) -> one transaction too, past the statements that fail: their errors
  send(...)/receive()      -> the same without waiting, to have several nodes work at once
  init(), watch_all(), sync(ms) -> 1 or 0, status() -> dict
  kill() -9, quit() clean end, restart() (after either), pause(), resume(), dump()
dump(path) reads all user tables of a database file as {table: (columns, rows)},
types and bytes kept; wait_equal(nodes_or_paths, seconds) compares these.
MARMOT_PRELOAD is preloaded into hosts (a sanitizer's runtime), MARMOT_WRAP goes
before their commands (valgrind). MARMOT_TEST_SLOW (test/run --slow) multiplies what
wait_until, Node.sync and the busy time-outs of the hosts give.
"""
import atexit
import ctypes
import fcntl
import json
import os
import random
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from database_file import difference, dump, integrity, typed  # noqa: F401
from outbox_file import outbox, transactions  # noqa: F401

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXTENSION = os.environ.get("MARMOT_SO", os.path.join(TOP, "libmarmot.so"))
PYTHON = "/usr/bin/python3"
WRAP = shlex.split(os.environ.get("MARMOT_WRAP", ""))
SLOW = float(os.environ.get("MARMOT_TEST_SLOW") or 1)
PLAIN = SLOW == 1 and not WRAP and not os.environ.get("MARMOT_PRELOAD")
WORKER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "node_worker.py")

results = {"ok": 0, "not ok": 0}
ended = threading.Event()


class SqlError(Exception):
    """An SQL error in a node's process; its text is SQLite's message."""


class Timeout(Exception):
    """wait_until gave up."""


class Died(Exception):
    """A node's process ended while an answer was expected."""


# Reporting.

def ok(name):
    results["ok"] += 1
    print("ok " + name, flush=True)


def not_ok(name, why):
    results["not ok"] += 1
    print("not ok %s: %s" % (name, " ".join(str(why).split())), flush=True)


def check(name, condition, why):
    if condition:
        ok(name)
    else:
        not_ok(name, why)
    return bool(condition)


def bar(name, condition, why):
    if PLAIN:
        return check(name, condition, why)
    note("not judged here: %s: %s" % (name, why))
    return True


def note(text):
    print("# " + str(text), flush=True)


def finish():
    ended.set()
    if results["ok"] == 0 and results["not ok"] == 0:
        not_ok(os.path.basename(sys.argv[0]), "no case ran")
    sys.exit(1 if results["not ok"] else 0)


def report_exception(kind, value, trace):
    not_ok(os.path.basename(sys.argv[0]), "%s: %s" % (kind.__name__, value))
    sys.__excepthook__(kind, value, trace)


def report_missing_finish():
    if not ended.is_set() and results["not ok"] == 0:
        not_ok(os.path.basename(sys.argv[0]), "ended without finish()")
        sys.stdout.flush()
        os._exit(1)


sys.excepthook = report_exception
atexit.register(report_missing_finish)


# Waiting, chance, ports.

def wait_until(predicate, seconds=20, what="condition", every=0.02):
    """Polls until predicate() is true and returns its value; raises Timeout."""
    end = time.monotonic() + seconds * SLOW
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise Timeout("not within %g s: %s" % (seconds * SLOW, what))
        time.sleep(every)


def seeded():
    """A random.Random whose seed is printed; MARMOT_TEST_SEED repeats a run."""
    seed = int(os.environ.get("MARMOT_TEST_SEED") or int.from_bytes(os.urandom(4), "big"))
    note("seed %d" % seed)
    return random.Random(seed)


ports = []  # locks of those that were given here


def free_port():
    """A loopback port that nobody listens on, below the ephemeral range: two
    neighbours stay free too (cluster and leaf listeners). It is this process's until
    that ends: a lock keeps it from being given again before somebody listens."""
    folder = os.path.join(tempfile.gettempdir(), "marmot-test-ports-%d" % os.getuid())
    os.makedirs(folder, exist_ok=True)
    for _ in range(200):
        port = random.SystemRandom().randrange(20000, 32000, 4)
        lock = open(os.path.join(folder, str(port)), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for p in (port, port + 1, port + 2):
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(("127.0.0.1", p))
            ports.append(lock)
            return port
        except OSError:
            lock.close()
    raise Timeout("no free port between 20000 and 32000")


def answers(port):
    """True when a NATS server greets on the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            return s.recv(5).startswith(b"INFO")
    except OSError:
        return False


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def plain_env(preload=None):
    """No sanitizer's runtime in Go programs and compilers."""
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return dict(env, LD_PRELOAD=preload) if preload else env


def pause(process):
    """SIGSTOP. A thread stops only once it runs: on a busy machine the others work on meanwhile."""
    process.send_signal(signal.SIGSTOP)

    def still():
        folder = "/proc/%d/task" % process.pid
        states = []
        for thread in os.listdir(folder):
            with open("%s/%s/stat" % (folder, thread)) as f:
                states.append(f.read().rsplit(")", 1)[1].split()[0])
        return set(states) <= {"T"}
    wait_until(still, 20, "all threads of %d stand still" % process.pid, every=0.002)


# Servers.

class NatsServer:
    def __init__(self, ws, port=None, config="", jetstream=True):
        self.port = port or free_port()
        self.url = "nats://127.0.0.1:%d" % self.port
        self.dir = os.path.join(ws.dir, "nats-%d" % self.port)
        self.process = None
        os.makedirs(self.dir, exist_ok=True)
        self.log = os.path.join(self.dir, "nats.log")
        store = "jetstream { store_dir: \"%s/js\", max_mem: 64MB, max_file: 10GB }\n" % self.dir if jetstream else ""
        with open(os.path.join(self.dir, "nats.conf"), "w") as f:
            f.write("server_name: \"t%d\"\nlisten: \"127.0.0.1:%d\"\n%s%s\n" % (self.port, self.port, store, config))
        ws.servers.append(self)

    def start(self, seconds=20):
        path = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/bin")
        if path is None:
            raise Timeout("nats-server is not installed: run make deps")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([path, "-c", os.path.join(self.dir, "nats.conf")], stdout=log, stderr=log,
                                            stdin=subprocess.DEVNULL, env=plain_env(), preexec_fn=die_with_parent)
        wait_until(lambda: self.process.poll() is not None or answers(self.port), seconds, "nats-server answers")
        if self.process.poll() is not None:
            with open(self.log) as log:
                raise Timeout("nats-server ended: " + log.read()[-500:])
        return self

    def end(self, sig):
        if self.process is not None:
            self.process.send_signal(sig)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(30 * SLOW)
            self.process = None

    def stop(self):
        self.end(signal.SIGTERM)

    def kill(self):
        self.end(signal.SIGKILL)

    def restart(self, hard=True):
        self.end(signal.SIGKILL if hard else signal.SIGTERM)
        return self.start()

    def pause(self):
        pause(self.process)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def wipe(self):
        """Stops the server and removes its store: a new, empty server on the port."""
        self.kill()
        shutil.rmtree(os.path.join(self.dir, "js"), ignore_errors=True)


# Nodes.

def plain(value):
    if isinstance(value, dict):
        return bytes.fromhex(value["blob"]) if "blob" in value else float(value["real"])
    return value


def wire(value):
    if isinstance(value, bytes):
        return {"blob": value.hex()}
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"real": repr(value)}
    return value


class Node:
    def __init__(self, ws, name, urls=None, config=None, schema=None, watch=True, db=None, extension=None):
        self.name = name
        self.db = db or os.path.join(ws.dir, name + ".db")
        self.schema = schema
        self.watch = watch
        self.extension = EXTENSION if extension is None else extension
        self.env = dict(plain_env(os.environ.get("MARMOT_PRELOAD")), XDG_STATE_HOME=ws.state_home)
        self.errors = os.path.join(ws.dir, name + ".log")
        self.process = None
        self.config = config
        if config is None:
            nats = {"urls": [urls]} if urls else {"bind_address": ws.bind_address}
            self.config = {"nats": nats}
        ws.nodes.append(self)
        if schema:
            with sqlite3.connect(self.db) as plain_db:
                plain_db.execute("PRAGMA journal_mode=wal")
                plain_db.executescript(schema)
            plain_db.close()
        self.start()

    def start(self):
        """Starts the process; with a configuration also init and watch_all."""
        with open(self.errors, "ab") as log:
            self.process = subprocess.Popen(WRAP + [PYTHON, WORKER, self.db, self.extension], stdin=subprocess.PIPE,
                                            stdout=subprocess.PIPE, stderr=log, env=self.env, text=True,
                                            preexec_fn=die_with_parent)
        self.receive_line()
        if self.config is not False:
            self.init()
            if self.watch:
                self.watch_all()
        return self

    def receive_line(self):
        line = self.process.stdout.readline()
        if not line:
            with open(self.errors, errors="replace") as log:
                raise Died("node %s ended (%s): %s" % (self.name, self.process.wait(), log.read()[-800:]))
        return json.loads(line)

    def send(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as e:
            raise Died("node %s has ended" % self.name) from e

    def receive(self):
        answer = self.receive_line()
        if "error" in answer:
            raise SqlError(answer["error"])
        return [tuple(plain(v) for v in row) for row in answer["rows"]]

    def send_sql(self, text, *args, conn=0):
        self.send(op="sql", conn=conn, sql=text, args=[wire(a) for a in args])

    def sql(self, text, *args, conn=0):
        self.send_sql(text, *args, conn=conn)
        return self.receive()

    def one(self, text, *args, conn=0):
        rows = self.sql(text, *args, conn=conn)
        return rows[0][0] if rows else None

    def send_many(self, text, rows, conn=0):
        self.send(op="many", conn=conn, sql=text, rows=[[wire(v) for v in row] for row in rows])

    def many(self, text, rows, conn=0):
        self.send_many(text, rows, conn)
        self.receive()

    def send_txn(self, steps, conn=0):
        self.send(op="txn", conn=conn, steps=[[s, [wire(a) for a in args]] for s, args in steps])

    def each(self, steps, conn=0):
        self.send(op="each", conn=conn, steps=[[s, [wire(a) for a in args]] for s, args in steps])
        return [e for e, in self.receive()]

    def txn(self, steps, conn=0):
        self.send_txn(steps, conn)
        self.receive()

    def open(self, conn):
        self.send(op="open", conn=conn)
        self.receive()

    def close(self, conn):
        self.send(op="close", conn=conn)
        self.receive()

    def init(self):
        return json.loads(self.one("SELECT marmot_init(?)", json.dumps(self.config)))

    def watch_all(self):
        return self.one("SELECT marmot_watch_all()")

    def sync(self, ms=10000):
        return self.one("SELECT marmot_sync(?)", int(ms * SLOW))

    def status(self):
        return json.loads(self.one("SELECT marmot_status()"))

    def wait_state(self, state, seconds=20):
        wait_until(lambda: self.status()["state"] == state, seconds, "node %s is %s" % (self.name, state))

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.reap()

    def pause(self):
        pause(self.process)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def quit(self):
        """Closes the connections in order and ends the process."""
        self.send(op="quit")
        code = self.process.wait(30 * SLOW)
        self.reap()
        if code != 0:
            raise Died("node %s ended with %d" % (self.name, code))

    def reap(self):
        self.process.wait(30 * SLOW)
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        self.process = None

    def restart(self):
        if self.process is not None:
            self.kill()
        return self.start()

    def dump(self):
        return dump(self.db)


def wait_equal(nodes, seconds=20):
    """Waits until the databases (nodes or paths) are equal; raises Timeout with
    the first difference. Returns the common dump."""
    paths = [n.db if isinstance(n, Node) else n for n in nodes]
    last = [""]

    def equal():
        dumps = [dump(p) for p in paths]
        for path, other in zip(paths[1:], dumps[1:]):
            last[0] = difference(dumps[0], other)
            if last[0]:
                last[0] = "%s / %s: %s" % (os.path.basename(paths[0]), os.path.basename(path), last[0])
                return None
        return dumps
    try:
        return wait_until(equal, seconds, "equal databases")[0]
    except Timeout as e:
        raise Timeout("%s; %s" % (e, last[0])) from None


class Workspace:
    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="marmot-test-")
        self.state_home = os.path.join(self.dir, "state")
        os.makedirs(self.state_home)
        self.bind_address = "127.0.0.1:%d" % free_port()
        self.servers = []
        self.nodes = []
        return self

    def __exit__(self, kind, value, trace):
        for node in self.nodes:
            node.kill()
        for server in self.servers:
            server.kill()
        failed = kind is not None or results["not ok"] > 0
        if failed:
            self.show_logs()
        if failed and os.environ.get("MARMOT_TEST_KEEP"):
            note("kept " + self.dir)
        else:
            shutil.rmtree(self.dir, ignore_errors=True)

    def show_logs(self):
        for node in self.nodes:
            if os.path.exists(node.errors):
                with open(node.errors, errors="replace") as log:
                    for line in log.read().splitlines()[-20:]:
                        note("%s: %s" % (node.name, line))
