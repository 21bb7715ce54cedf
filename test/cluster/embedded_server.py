"""The embedded server: found or started, taken over when its owner is killed,
started again when it dies itself; nothing of the host leaks into it, nothing of
it stays behind.
marmot-test: parallel
"""
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from cluster_writers import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"
ROUNDS = 6
# A host with files and sockets that its children would inherit.
LEAKY = """
import json, os, socket, sqlite3, sys
path, extension, config, secret = sys.argv[1:]
with open(secret, "w") as f:
    f.write("secret")
for flags in (os.O_RDONLY, os.O_RDWR):
    os.set_inheritable(os.open(secret, flags), True)
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
os.set_inheritable(listener.fileno(), True)
db = sqlite3.connect(path, isolation_level=None)
db.enable_load_extension(True)
db.load_extension(extension)
db.execute("SELECT marmot_init(?)", (config,))
db.execute("SELECT marmot_watch_all()")
db.execute("SELECT marmot_sync(20000)").fetchone()
print(db.execute("SELECT marmot_status()").fetchone()[0], flush=True)
print(os.readlink("/proc/self/fd/%d" % listener.fileno()), flush=True)
sys.stdin.readline()
"""


def state_of(pid):
    """R, S, Z ...; empty when there is no such process."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def descriptors(pid):
    found = []
    for fd in os.listdir("/proc/%d/fd" % pid):
        try:
            found.append(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
        except FileNotFoundError:
            continue
    return found


def owner_of(nodes, seconds=15):
    """The node whose status names a child, and that child."""
    def look():
        for n in nodes:
            pid = n.status()["server_pid"]
            if pid and state_of(pid) not in ("", "Z"):
                return n, pid
        return None
    return wait_until(look, seconds, "some node has started a server")


def nothing_leaks(ws):
    path = os.path.join(ws.dir, "leaky.db")
    secret = os.path.join(ws.dir, "secret.txt")
    with sqlite3.connect(path) as db:
        db.executescript(SCHEMA)
    db.close()
    config = json.dumps({"nats": {"bind_address": ws.bind_address}})
    env = dict(os.environ, XDG_STATE_HOME=ws.state_home)
    host = subprocess.Popen([PYTHON, "-c", LEAKY, path, EXTENSION, config, secret], env=env, text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
    try:
        status = json.loads(host.stdout.readline())
        listener = host.stdout.readline().strip()
        held = descriptors(status["server_pid"])
        check("the server is a child of its host", status["server_pid"] in servers_of(ws), status)
        check("no descriptor of the host is in it",
              not [h for h in held if h in (secret, listener) or h.startswith(path)], held)
        host.kill()
        host.wait(10)
        wait_until(lambda: state_of(status["server_pid"]) == "", 5, "the server has gone with its host")
        ok("kill -9 of the host leaves no server behind")
        no_servers_left(ws)
    finally:
        host.kill()
        host.wait(10)
        host.stdin.close()
        host.stdout.close()


def taken_over(ws, rng):
    nodes = [Node(ws, name, schema=SCHEMA) for name in "abc"]
    for n in nodes:
        check("%s finds or starts the server" % n.name, n.sync(20000) == 1, n.status())
    check("there is one server", len(servers_of(ws)) == 1, servers_of(ws))
    longest = 0
    for k in range(ROUNDS):
        owner, pid = owner_of(nodes)
        rest = [n for n in nodes if n is not owner]
        for n in nodes:
            n.sql("INSERT INTO t(v) VALUES (?) ", "%s %d" % (n.name, k))
        if k % 3 == 2:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: owner_of(nodes)[1] != pid, 15, "the killed server is started again")
            check("no zombie is left of it", state_of(pid) == "", state_of(pid))
        else:
            owner.kill()
            start = time.monotonic()
            rest[0].sql("INSERT INTO t(v) VALUES ('after the kill')")
            check("round %d: the others go on" % k, rest[0].sync(15000) == 1 and rest[1].sync(15000) == 1,
                  rest[0].status())
            longest = max(longest, time.monotonic() - start)
            if rng.random() < 0.5:
                owner_of(rest)
            owner.start()
    note("taken over within %.1f s" % longest)
    bar("taken over within seconds", longest < 8, "%.1f s" % longest)
    for n in nodes:
        check("%s is in step after all" % n.name, n.sync(20000) == 1, n.status())
    common = everywhere(nodes)
    check("no row is lost", len([r for r in common["t"][1]]) >= ROUNDS, common["t"])
    check("still one server", len(servers_of(ws)) == 1, servers_of(ws))
    for n in nodes:
        n.quit()
    no_servers_left(ws)
    everywhere(nodes)
    ok("after the last clean end no server is left")


def under_writers(ws, rng):
    """Kills of the owner while all write."""
    config = {"nats": {"bind_address": ws.bind_address}}
    writers = [Writer(ws, name, config, rng, pause_ms=10) for name in ("w1", "w2", "w3")]
    for w in writers:
        w.wait_writing(20)
    for _ in range(ROUNDS):
        servers = wait_until(lambda: servers_of(ws), 15, "a server")
        parents = [int(open("/proc/%d/stat" % s).read().rsplit(")", 1)[1].split()[1]) for s in servers]
        for w in [w for w in writers if w.process.pid in parents]:
            w.kill()
            for other in writers:
                if other is not w:
                    other.wait_writing(rng.randrange(1, 60))
            w.start()
            w.wait_writing(rng.randrange(1, 60))
    settle(writers, 60)
    no_servers_left(ws)


def main():
    rng = seeded()
    with Workspace() as ws:
        nothing_leaks(ws)
    with Workspace() as ws:
        taken_over(ws, rng)
    with Workspace() as ws:
        under_writers(ws, rng)
    finish()


main()
