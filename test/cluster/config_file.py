"""marmot_init with a TOML file of Marmot's shape: it starts the embedded server
that the file names, with the configuration that it names; neither is stored, and
SQL cannot name them.
marmot-test: parallel
"""
import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE Books(id INTEGER PRIMARY KEY, title TEXT);"
FILE = """
db_path="/tmp/marmot.db"   # says nothing here
cleanup_interval = 5000
[replication_log]
shards = 1
max_entries = 1_000_000
[nats]
urls=[ ]
bind_address='%s'
server_binary = "%s"
server_config = '%s'
[logging]
format="console"
"""
# Says that it ran, then is the server.
WRAPPER = """#!/bin/sh
echo ran >>%s
exec %s "$@"
"""


def write(path, text, mode):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)
    return path


def fails(name, node, config, *words):
    try:
        message = "no error, but %r" % node.one("SELECT marmot_init(?)", config)
    except SqlError as e:
        message = str(e)
    check("error: " + name, all(w in message for w in ("marmot_init: ",) + words), message)


def main():
    with Workspace() as ws:
        ran = os.path.join(ws.dir, "ran")
        real = shutil.which("nats-server", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/bin")
        binary = write(os.path.join(ws.dir, "my-nats"), WRAPPER % (ran, real), 0o755)
        conf = write(os.path.join(ws.dir, "my.conf"), "server_name: \"mine\"\nmax_payload: 2MB\n", 0o600)
        file = os.path.join(ws.dir, "config.toml")
        text = FILE % (ws.bind_address, binary, conf)
        a = Node(ws, "a", schema=SCHEMA, config=False)
        write(file, text, 0o666)
        fails("a file that others may write", a, file, file, "names a program", "chmod go-w")
        fails("the same in JSON", a, json.dumps({"nats": {"server_binary": binary}}), "nats.server_binary", "TOML file")
        fails("a mistake in it", a, write(os.path.join(ws.dir, "bad.toml"), text + "\nformat = 1", 0o600), "line 15",
              "given twice")
        fails("no such file", a, file + ".no", "cannot be opened", "TOML")
        check("nothing was run", not os.path.exists(ran), "something was")
        write(file, text, 0o600)
        answer = json.loads(a.one("SELECT marmot_init(?)", file))
        check("keys without a meaning are told", any("db_path" in w for w in answer["warnings"]), answer)
        a.one("SELECT marmot_watch_all()")
        check("the node replicates", a.sync(20000) == 1, a.status())
        with open(ran) as f:
            check("through the server that the file names", f.read() == "ran\n", "it did not run")
        with socket.create_connection(("127.0.0.1", int(ws.bind_address.rsplit(":", 1)[1])), 5) as s:
            greeting = s.recv(4096).decode()
        check("with its configuration", '"server_name":"mine"' in greeting and '"max_payload":2097152' in greeting, greeting)
        stored = a.one("SELECT value FROM __marmot__meta WHERE key = 'config'")
        check("neither is stored", binary not in stored and conf not in stored and "server_" not in stored, stored)
        b = Node(ws, "b", schema=SCHEMA)
        a.sql("INSERT INTO Books VALUES (1, 'Emma')")
        a.sync(20000)
        b.sync(20000)
        wait_equal([a, b])
        ok("another node joins there")
        again = json.loads(a.one("SELECT marmot_init(?)", file))
        check("the same file again is the same node", again["node_id"] == answer["node_id"], again)
        b.quit()
        a.quit()
        a.start()
        a.one("SELECT marmot_init()")
        check("without the file it is the usual server", a.sync(20000) == 1, a.status())
        with open(ran) as f:
            check("and no program of the file's", f.read() == "ran\n", "it ran again")
        check("the rows are there", a.one("SELECT title FROM Books") == "Emma", a.sql("SELECT * FROM Books"))
    finish()


main()
