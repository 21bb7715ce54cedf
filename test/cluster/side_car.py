"""marmot_run: a sqlite3 shell that does nothing but replicate for programs that
only load the library, how signals, a time-out and marmot_stop end it, and that the
handlers of the application come back.
marmot-test: parallel
"""
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
# A host with handlers of its own: each line of its output is something that happened.
HANDLERS = """
import select, signal, sqlite3, sys
say = lambda *a: print(*a, flush=True)
signal.signal(signal.SIGTERM, lambda *a: say("the application's SIGTERM"))
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[4] == "ignore" else lambda *a: say("the application's SIGINT"))
db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
db.enable_load_extension(True)
db.load_extension(sys.argv[2])
db.execute("SELECT marmot_init(?)", (sys.argv[3],)).fetchone()
for number in (1, 2):
    say("run")
    say("ran", db.execute("SELECT marmot_run()").fetchone()[0])
say("over")
while not select.select([0], [], [], 0.02)[0]:
    pass  # Python runs a handler between two statements: a read that has no end could begin before it
"""


class SideCar:
    def __init__(self, path, env, url, tail="SELECT marmot_run()", terminal=None):
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            WRAP + ["sqlite3", "-batch", path, "-cmd", ".timeout 5000", ".load " + EXTENSION,
                    "SELECT marmot_init('%s')" % url, "SELECT marmot_watch_all()", tail],
            env=env, stdin=terminal or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=terminal or subprocess.PIPE,
            text=True, start_new_session=True,
            preexec_fn=None if terminal is None else lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0))

    def end(self, number=None):
        """Exit code, lines of output, what it said beside them, seconds from the signal on."""
        began = time.monotonic() if number else self.started
        if number:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=30 * SLOW)
        return self.process.returncode, out.splitlines(), err, time.monotonic() - began


def in_poll(path):
    with open(path) as f:
        return f.read().split()[0] in ("7", "73", "271")


def waits_in_poll(pid):
    """The process is inside poll(2) or ppoll(2), as marmot_run is and its hosts are not otherwise."""
    wait_until(lambda: in_poll("/proc/%d/syscall" % pid), 20, "the host is in marmot_run")


def wait_row(node, key, what):
    wait_until(lambda: peek(node.db, "SELECT count(*) FROM t WHERE id = ?", key)[0][0] == 1, 20, what)


def replicates(ws, nats, b):
    path = os.path.join(ws.dir, "a.db")
    with sqlite3.connect(path) as db:
        db.executescript("PRAGMA journal_mode=wal;" + SCHEMA)
    db.close()
    # The application: it loads the library and never calls marmot_init.
    app = Node(ws, "app", db=path, config=False)
    for turn, number in enumerate((signal.SIGTERM, signal.SIGINT)):
        car = SideCar(path, b.env, nats.url)
        wait_until(lambda: peek(path, "SELECT count(*) FROM sqlite_schema WHERE name = '__marmot__table'")[0][0] and
                   peek(path, "SELECT count(*) FROM __marmot__table WHERE name = 't'")[0][0], 20, "the side-car watches")
        b.sql("INSERT INTO t VALUES (?, 'of b')", 100 + turn)
        wait_row(app, 100 + turn, "the side-car applies")
        app.sql("INSERT INTO t VALUES (?, 'of the application')", 200 + turn)
        wait_row(b, 200 + turn, "the side-car sends")
        ok("it replicates for a program that only loads the library (%s)" % number.name)
        app.sql("INSERT INTO t VALUES (?, 'the last')", 300 + turn)
        code, lines, err, seconds = car.end(number)
        check("%s ends it with exit code 0" % number.name, code == 0, (code, err))
        bar("and soon", seconds < 5, seconds)
        check("%s: it has said what its functions return, nothing else" % number.name,
              len(lines) == 3 and lines[0].startswith('{"node_id"') and lines[1:] == ["1", "1"] and err == "", (lines, err))
        wait_row(b, 300 + turn, "what was written last is sent before the end")
    app.quit()
    return path


def times_out(path, env, nats):
    car = SideCar(path, env, nats.url, "SELECT marmot_run(700)")
    code, lines, err, seconds = car.end()
    check("a time-out ends it", code == 0 and lines[-1:] == ["1"] and 0.7 <= seconds, (code, lines, err, seconds))
    bar("in time", seconds < 10, seconds)


def terminal(path, env, nats, b):
    """Progress is told on a terminal, and Ctrl-C there ends it."""
    nats.stop()
    ours, theirs = pty.openpty()
    car = SideCar(path, env, nats.url, terminal=theirs)
    os.close(theirs)
    heard = [""]

    def listen():
        try:
            while True:
                heard[0] += os.read(ours, 4096).decode()
        except OSError:
            pass
    thread = threading.Thread(target=listen)
    thread.start()
    waits_in_poll(car.process.pid)
    holder = sqlite3.connect(path, isolation_level=None, timeout=10)
    holder.execute("BEGIN IMMEDIATE")  # nothing can be folded meanwhile
    pause(car.process)
    nats.start()
    b.sql("INSERT INTO t VALUES (400, 'while it waits')")
    b.sync(20000)
    car.process.send_signal(signal.SIGCONT)
    wait_until(lambda: "marmot: reading the log, " in heard[0], 20, "progress on the terminal")
    ok("a joining that takes long is told on a terminal")
    holder.close()
    wait_until(lambda: heard[0].endswith("\r\x1b[K"), 20, "the line is cleared")
    wait_until(lambda: peek(path, "SELECT count(*) FROM t WHERE id = 400")[0][0] == 1, 20, "the row")
    os.write(ours, b"\x03")
    code, lines, _, _ = car.end()
    thread.join(1)
    os.close(ours)
    check("Ctrl-C ends it", code == 0 and len(lines) == 3 and lines[2] == "1", (code, lines, heard))


def handlers(path, env, nats):
    for kind in ("own", "ignore"):
        host = subprocess.Popen(WRAP + [PYTHON, "-c", HANDLERS, path, EXTENSION, nats.url, kind], env=env, text=True,
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = []

        def hear(n=1):
            for _ in range(n):
                said.append(host.stdout.readline().strip())

        hear()
        waits_in_poll(host.pid)
        if kind == "ignore":
            host.send_signal(signal.SIGINT)
            check("an ignored signal ends nothing", host.poll() is None, host.returncode)
            host.send_signal(signal.SIGTERM)
        else:
            host.send_signal(signal.SIGINT)
        hear(2)
        waits_in_poll(host.pid)
        host.send_signal(signal.SIGTERM)
        hear(2)
        host.send_signal(signal.SIGTERM)
        hear()
        if kind == "own":
            host.send_signal(signal.SIGINT)
            hear()
        out, _ = host.communicate("", timeout=30 * SLOW)
        check("the handlers of the application are its own again (%s)" % kind,
              said == ["run", "ran 1", "run", "ran 1", "over", "the application's SIGTERM"] +
              (["the application's SIGINT"] if kind == "own" else []) and host.returncode == 0, (said, host.returncode))


def refusals(path, env, nats):
    db = sqlite3.connect(path, isolation_level=None, timeout=5, check_same_thread=False)
    db.enable_load_extension(True)
    db.load_extension(EXTENSION)

    def fails(name, sql, words):
        try:
            message = "no error but %r" % (db.execute(sql).fetchall(),)
        except sqlite3.Error as e:
            message = str(e)
        check(name, message.startswith("marmot_run: ") and words in message, message)
    fails("without a node", "SELECT marmot_run(1)", "marmot_init() first")
    db.execute("SELECT marmot_init()").fetchone()
    db.execute("BEGIN")
    fails("inside a transaction", "SELECT marmot_run(1)", "inside a transaction")
    db.execute("COMMIT")
    fails("beside a reading statement", "SELECT marmot_run(1) FROM t", "still reading")
    answers = []
    runs = threading.Thread(target=lambda: answers.append(db.execute("SELECT marmot_run()").fetchone()[0]))
    runs.start()
    wait_until(lambda: in_poll("/proc/self/task/%d/syscall" % runs.native_id), 20, "a thread is in marmot_run")
    other = sqlite3.connect(path, isolation_level=None, timeout=5)

    def stop():
        try:
            return other.execute("SELECT marmot_stop()").fetchone()[0] == 1
        except sqlite3.Error as e:
            if "right now" not in str(e):
                raise
    wait_until(stop, 10, "marmot_stop of another connection")
    runs.join(10)
    check("marmot_stop on another connection ends it", answers == [1], answers)
    other.close()
    db.close()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        b = Node(ws, "b", urls=nats.url, schema=SCHEMA)
        path = replicates(ws, nats, b)
        times_out(path, b.env, nats)
        terminal(path, b.env, nats, b)
        handlers(path, b.env, nats)
        refusals(path, b.env, nats)
        b.sync()
        everywhere([b, path])
        b.quit()
    finish()


main()
