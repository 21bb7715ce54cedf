"""TLS to the server from within hosts: the client library brings its own OpenSSL.
marmot-test: parallel

MARMOT_HOSTS names the kinds of lib/host_kinds.py that are tried.
"""
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from host_kinds import KINDS, Absent  # noqa: E402

FEW = "python php ruby"
SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v);"


def certificates(ws):
    """Writes the texts of lib/tls.h as files; {name: path}."""
    with open(os.path.join(HERE, "..", "lib", "tls.h")) as f:
        header = f.read()
    paths = {}
    for name, body in re.findall(r'static const char (tls_\w+)\[\] = (.*?);\n', header, re.S):
        paths[name] = os.path.join(ws.dir, name + ".pem")
        with open(paths[name], "w") as out:
            out.write("".join(line + "\n" for line in re.findall(r'"(.*?)\\n"', body)))
    return paths


def config(nats, ca):
    return {"nats": {"urls": [nats.url], "ca_file": ca}}


def one_kind(kind):
    with Workspace() as ws:
        pem = certificates(ws)
        nats = NatsServer(ws, config='tls { cert_file: "%s", key_file: "%s" }\n' % (pem["tls_server"], pem["tls_server_key"])).start()
        peer = Node(ws, "peer", config=config(nats, pem["tls_ca"]), schema=SCHEMA)
        host = kind.start(ws, "host", config=config(nats, pem["tls_ca"]), schema=SCHEMA)
        host.ask("INSERT INTO t VALUES (1, hex(zeroblob(100000)));")
        peer.sql("INSERT INTO t VALUES (2, ?)", "b" * 200000)
        check("%s: both are in the log" % kind.name, (host.sync(), peer.sync(), host.sync()) == (1, 1, 1), host.status())
        common = everywhere([host, peer])
        check("%s: replicates over TLS" % kind.name, len(common["t"][1]) == 2, common["t"][1])
        stranger = kind.start(ws, "stranger", config=config(nats, pem["tls_other_ca"]), schema=SCHEMA)
        status = wait_until(lambda: (lambda s: s["state"] == "offline" and s)(stranger.status()), 20, "a wrong CA keeps it offline")
        check("%s: a server that another CA signed is refused" % kind.name, stranger.sync(200) == 0, status)


def main():
    for name in (os.environ.get("MARMOT_HOSTS") or FEW).replace("all", FEW).split():
        kind = KINDS[name]
        try:
            kind.prepare()
        except Absent as e:
            print("skipped %s (%s): %s" % (name, kind.what, e), flush=True)
            continue
        one_kind(kind)
    finish()


main()
