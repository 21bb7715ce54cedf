"""Metrics: what marmot_metrics has is what the page for Prometheus has; slow,
wordy and silent clients disturb nobody; the page follows who replicates.
marmot-test: parallel
"""
import os
import re
import sys
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403

SCHEMA = "CREATE TABLE t(id INTEGER PRIMARY KEY, v); CREATE TABLE virt(x, y, UNIQUE(x COLLATE nocase));"
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([a-z_]+="[^"\n]*"(?:,[a-z_]+="[^"\n]*")*)\})? (-?\d+)$')


def get(port, path="/metrics", method="GET"):
    request = urllib.request.Request("http://127.0.0.1:%d%s" % (port, path), method=method)
    with urllib.request.urlopen(request, timeout=30 * SLOW) as answer:
        return answer.headers, answer.read().decode()


def served(port):
    try:
        return get(port)[1]
    except OSError:
        return ""


def parse(text, prefix="marmot_"):
    """{(name, labels): value}; every name once, with HELP and TYPE before it."""
    found, typed, last = {}, {}, None
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            if name in typed or kind != ("counter" if name.endswith("_total") else "gauge"):
                raise ValueError(line)
            typed[name] = kind
        elif not line.startswith("# HELP "):
            m = SAMPLE.match(line)
            if not m or m.group(1) not in typed or (m.group(1) != last and (m.group(1),) in found):
                raise ValueError(line)
            last = m.group(1)
            found[last[len(prefix):], m.group(2) or ""] = int(m.group(3))
    return found


def the_same(nodes, port):
    a = nodes[0]
    a.many("INSERT INTO t VALUES (?, 1)", [[k] for k in range(50)])
    for n in nodes + nodes:
        n.sync(20000)
    time_of = ("behind_milliseconds",)

    def equal():
        page = parse(get(port)[1])
        table = {(r[0], r[1]): r[2] for r in a.sql("SELECT name, labels, value FROM marmot_metrics")}
        differ = {k: (page.get(k), table.get(k)) for k in set(page) | set(table)
                  if page.get(k) != table.get(k) and k[0] not in time_of}
        return page if not differ else None
    page = wait_until(equal, 10, "the page has what the table has")
    ok("the page has what the table has")
    check("a live node", page["up", ""] == 1 and page["state", 'state="live"'] == 1 and page["connected", ""] == 1
          and sum(v for k, v in page.items() if k[0] == "state") == 1, page)
    check("it has folded what there is", page["stream_lag_messages", 'shard="1"'] == 0
          and page["stream_position", 'shard="1"'] == a.status()["shards"][0]["position"], page)
    check("tables by state", page["tables", 'state="watched"'] >= 1, page)
    wait_until(lambda: parse(get(port)[1])["nodes_heard", ""] == 1, 10, "the other node is counted")
    ok("the other node is counted")


def trouble(nats, nodes, port):
    a = nodes[0]
    made = parse(get(port)[1])["connections_total", ""]
    nats.kill()
    a.wait_state("offline")
    a.sql("INSERT INTO t(v) VALUES (2)")
    page = wait_until(lambda: (lambda p: p if p["pending_transactions", ""] == 1 else None)(parse(get(port)[1])), 10,
                      "what waits is counted")
    check("an outage shows", page["connected", ""] == 0 and page["state", 'state="offline"'] == 1, page)
    nats.start()
    a.sync(20000)
    page = wait_until(lambda: (lambda p: p if p["connected", ""] == 1 else None)(parse(get(port)[1])), 10, "it is back")
    check("and the new connection", page["connections_total", ""] == made + 1 and page["pending_transactions", ""] == 0,
          page)


def raw(port, data):
    with socket.create_connection(("127.0.0.1", port), 10 * SLOW) as s:
        s.sendall(data)
        s.shutdown(socket.SHUT_WR)
        out = b""
        while True:
            try:
                more = s.recv(65536)
            except ConnectionResetError:
                return out
            if not more:
                return out
            out += more


def clients(nodes, port):
    headers, text = get(port)
    check("the format is named", headers["Content-Type"].startswith("text/plain; version=0.0.4"), headers)
    headers, nothing = get(port, method="HEAD")
    check("HEAD has no body", nothing == "" and int(headers["Content-Length"]) > 1000, headers)
    for path, method, code in (("/", "GET", 404), ("/metricsx", "GET", 404), ("/metrics", "POST", 405)):
        try:
            get(port, path, method)
            check("%s %s" % (method, path), False, "answered")
        except urllib.error.HTTPError as e:
            check("%s %s is %d" % (method, path, code), e.code == code, e)
    check("a query is passed over", "marmot_up 1" in get(port, "/metrics?a=b")[1], "no")
    for name, data in (("nothing", b""), ("a header without end", b"GET /metrics HTTP/1.1\r\nX: " + b"y" * 9000),
                       ("no HTTP", b"\x16\x03\x01" + bytes(300)), ("half a request", b"GET /metr")):
        check("%s gets no page" % name, b"marmot_up" not in raw(port, data), "a page")
    silent = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(20)]
    began = time.monotonic()
    nodes[0].sql("INSERT INTO t(v) VALUES (3)")
    check("silent clients disturb no replication", nodes[0].sync() == 1, nodes[0].status())
    bar("nor slow it down", time.monotonic() - began < 5, time.monotonic() - began)
    page = parse(get(port)[1])
    check("nor hold up others", page["up", ""] == 1, page)
    bar("others wait for seconds only", time.monotonic() - began < 30, time.monotonic() - began)
    for s in silent:
        s.close()


def follows(nodes, port):
    """The page is served by the process that replicates; another takes over."""
    second = Node(nodes[0].workspace, "second", config=nodes[0].config, db=nodes[0].db, watch=False)
    second.wait_state("standby")
    nodes[0].kill()
    wait_until(lambda: second.status()["state"] == "live", 20, "the other process takes over")

    wait_until(lambda: "marmot_up 1" in served(port), 20, "it serves the page")
    ok("the page follows who replicates")
    second.quit()


def main():
    with Workspace() as ws:
        nats = NatsServer(ws).start()
        port = free_port()
        config = {"nats": {"urls": [nats.url]}}
        page = {"enable": True, "bind": "127.0.0.1:%d" % port}
        nodes = [Node(ws, "a", config=dict(config, prometheus=page), schema=SCHEMA),
                 Node(ws, "b", config=config, schema=SCHEMA)]
        nodes[0].workspace = ws
        the_same(nodes, port)
        clients(nodes, port)
        trouble(nats, nodes, port)
        taken = Node(ws, "taken", config=dict(config, prometheus=page), schema=SCHEMA)
        check("a port that is taken stops nothing", taken.sync(20000) == 1, taken.status())
        with open(taken.errors) as f:
            log = f.read()
        check("and is told", "cannot listen at prometheus.bind 127.0.0.1:%d" % port in log, log)
        taken.quit()
        follows(nodes, port)
        named = dict(config, prometheus={"enable": True, "bind": "127.0.0.1:%d" % port, "namespace": "", "subsystem": "db"})
        other = Node(ws, "named", config=named, schema=SCHEMA)
        text = wait_until(lambda: served(port), 10, "a page")
        check("names begin as configured", "\ndb_up 1\n" in text and parse(text, "db_")["up", ""] == 1, text[:200])
        other.quit()
        for bad, word in ((":0x", "prometheus.bind"), ("127.0.0.1", "prometheus.bind"), ("a b:1", "prometheus.bind")):
            try:
                Node(ws, "bad%d" % len(ws.nodes), config=dict(config, prometheus={"enable": True, "bind": bad}), schema=SCHEMA)
                check("bind " + bad, False, "taken")
            except SqlError as e:
                check("bind %s is refused" % bad, word in str(e), e)
    finish()


main()
