"""TLS from within hosts, to the NATS server and to a snapshot store: the libraries for
both bring their own OpenSSL.
marmot-test: parallel

Node exports an OpenSSL of its own: the loader says whose functions ours found.

MARMOT_HOSTS names the kinds of lib/host_kinds.py that are tried.
"""
import json
import os
import re
import sys
from urllib.parse import quote

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from host_kinds import KINDS, Absent  # noqa: E402
from store_servers import PASSWORD, USER, Apache, authority  # noqa: E402

FEW = "python php ruby node"
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


def config(nats, ca, store):
    return {"nats": {"urls": [nats.url], "ca_file": ca}, "snapshot": store}


def secure_store(ws):
    """A WebDAV server by TLS; every process from here on trusts it."""
    cert, key = authority(ws)
    os.environ["SSL_CERT_FILE"] = cert
    url = Apache(ws, tls=(cert, key)).start().url
    return {"store": "webdav", "webdav": {"url": "%s?dir=/s&login=%s&secret=%s" % (url, USER, quote(PASSWORD))}}


def bindings(prefix, library):
    """Of this library's calls into OpenSSL: by which file each name was found."""
    found = {}
    for name in os.listdir(os.path.dirname(prefix)):
        path = os.path.join(os.path.dirname(prefix), name)
        if not path.startswith(prefix):
            continue
        with open(path, errors="replace") as f:
            for line in f:
                m = re.search(r"binding file \S*%s\S* \[\d+\] to (\S+) \[\d+\]: normal symbol `((?:SSL|X509|EVP)_\w+)'" % library, line)
                if m:
                    found[m.group(2)] = os.path.basename(m.group(1))
    return found


def started(kind, ws, name, **how):
    """The loader of the host writes down whose symbols it takes."""
    more = {"LD_DEBUG": "bindings", "LD_DEBUG_OUTPUT": os.path.join(ws.dir, name + "-loader"), "LD_BIND_NOW": "1"}
    os.environ.update(more)
    try:
        return kind.start(ws, name, **how), more["LD_DEBUG_OUTPUT"]
    finally:
        for key in more:
            del os.environ[key]


def one_kind(kind):
    with Workspace() as ws:
        pem = certificates(ws)
        nats = NatsServer(ws, config='tls { cert_file: "%s", key_file: "%s" }\n' % (pem["tls_server"], pem["tls_server_key"])).start()
        absent = Apache.missing()
        store = {"enabled": False} if absent else secure_store(ws)
        peer = Node(ws, "peer", config=config(nats, pem["tls_ca"], store), schema=SCHEMA)
        host, loader = started(kind, ws, "host", config=config(nats, pem["tls_ca"], store), schema=SCHEMA)
        host.ask("INSERT INTO t VALUES (1, hex(zeroblob(100000)));")
        peer.sql("INSERT INTO t VALUES (2, ?)", "b" * 200000)
        check("%s: both are in the log" % kind.name, (host.sync(), peer.sync(), host.sync()) == (1, 1, 1), host.status())
        common = everywhere([host, peer])
        check("%s: replicates over TLS" % kind.name, len(common["t"][1]) == 2, common["t"][1])
        if absent:
            print("skipped snapshots by HTTPS: %s" % absent, flush=True)
        else:
            said = host.one("SELECT marmot_snapshot()")
            check("%s: a snapshot is stored by HTTPS" % kind.name, json.loads(said)["bytes"] > 0, said)
        for library in ["libnats"] if absent else ["libnats", "libcurl"]:
            names = bindings(loader, library)
            strange = {n: f for n, f in names.items() if not re.match(r"lib(ssl|crypto)\.so", f)}
            check("%s: %s calls the system's OpenSSL" % (kind.name, library), len(names) > 10 and not strange, strange or names)
            note("%d functions" % len(names))
        stranger = kind.start(ws, "stranger", config=config(nats, pem["tls_other_ca"], store), schema=SCHEMA)
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
