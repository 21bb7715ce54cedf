"""A Django application on two nodes: migrations, then gunicorn with forked workers
and threads on each, both under load; at the end both databases are equal.
marmot-test: limit=900

The same load first on one file without the extension: what plain SQLite answers
under it is the measure for "database is locked".
"""
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403
from host_kinds import Absent, installed, run  # noqa: E402

PACKAGES = ["Django==5.2.19", "gunicorn==27.0.1"]
CLIENTS = 4       # a shop
REQUESTS = 60     # a client
WORKERS, THREADS = 2, 2


def environment():
    def install(folder):
        run(folder, PYTHON, "-m", "venv", "env")
        run(folder, os.path.join(folder, "env", "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", *PACKAGES)
    return os.path.join(installed("django", " ".join(PACKAGES), install), "env", "bin", "python")


class Shop:
    """One site: its folder, its database, its gunicorn."""

    def __init__(self, ws, python, name, url):
        self.name, self.python = name, python
        self.dir = os.path.join(ws.dir, name)
        os.makedirs(self.dir)
        self.db = os.path.join(self.dir, "shop.db")
        self.port = free_port()
        self.log = os.path.join(self.dir, "log")
        self.process = None
        self.env = dict(plain_env(), SHOP_DIR=self.dir, DJANGO_SETTINGS_MODULE="shop.settings", PYTHONPATH=HERE,
                        PYTHONDONTWRITEBYTECODE="1", XDG_STATE_HOME=ws.state_home)
        if url:
            self.env.update(SHOP_EXTENSION=EXTENSION, SHOP_CONFIG=json.dumps({"nats": {"urls": [url]}}))

    def manage(self, *words):
        done = subprocess.run([self.python, "-m", "django", *words], env=self.env, cwd=self.dir, capture_output=True,
                              text=True, timeout=120, check=False)
        if done.returncode != 0:
            raise Died("%s: django %s: %s" % (self.name, words[0], done.stderr[-800:]))
        return done.stdout

    def sql(self, *statements):
        """By Django's own connection, extension loaded; the last statement's first value."""
        return json.loads(self.manage("shell", "-v", "0", "-c", """
import json
from django.db import connection
with connection.cursor() as cursor:
    for text in json.loads(%r):
        value = cursor.execute(text).fetchone()
print(json.dumps(value[0]))
""" % json.dumps(statements)))

    def serve(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.python, "-m", "gunicorn", "--bind", "127.0.0.1:%d" % self.port, "--workers", str(WORKERS), "--threads",
                 str(THREADS), "--preload", "--graceful-timeout", "10", "--pid", os.path.join(self.dir, "pid"),
                 "--no-control-socket", "shop.wsgi"],
                stdout=log, stderr=log, env=self.env, cwd=self.dir, preexec_fn=die_with_parent, start_new_session=True)
        wait_until(lambda: self.process.poll() is not None or self.listens(), 30, "gunicorn of %s listens" % self.name)
        if self.process.poll() is not None:
            raise Died("gunicorn of %s ended: %s" % (self.name, self.said()[-800:]))

    def listens(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def said(self):
        with open(self.log, errors="replace") as f:
            return f.read()

    def workers(self):
        with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as f:
            return [int(p) for p in f.read().split()]

    def stop(self):
        """Gunicorn's own end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(40)
        self.process = None
        return code

    def kill(self):
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)


class Client(threading.Thread):
    """A customer's browser: one connection, a cookie, requests in order."""

    def __init__(self, shop, number, seed):
        super().__init__()
        self.shop, self.number, self.rng = shop, number, random.Random(seed)
        self.http = None
        self.cookie = ""
        self.orders, self.cancelled, self.paid = {}, set(), set()
        self.failures, self.cut, self.done = [], 0, 0

    def ask(self, page, body=None):
        headers = {"Cookie": self.cookie} if self.cookie else {}
        if self.http is None:
            self.http = http.client.HTTPConnection("127.0.0.1", self.shop.port, timeout=60)
        try:
            self.http.request("POST" if body is not None else "GET", page, json.dumps(body) if body is not None else None, headers)
            answer = self.http.getresponse()
            text = answer.read()
        except (http.client.HTTPException, OSError):
            self.cut += 1  # its worker was killed, or ended the connection: the fate of the request is unknown
            self.http.close()
            self.http = None
            return None
        if answer.getheader("Set-Cookie"):
            self.cookie = answer.getheader("Set-Cookie").split(";")[0]
        if answer.status != 200:
            self.failures.append("%s: %d" % (page, answer.status))
            return None
        self.done += 1
        return json.loads(text)

    def step(self):
        rng = self.rng
        choice = rng.random()
        open_orders = [o for o in self.orders if o not in self.cancelled]
        if choice < 0.15:
            self.ask("/register", {"email": "%s-%d-%d@new" % (self.shop.name, self.number, rng.randrange(10)), "name": "N"})
        elif choice < 0.3 and open_orders:
            order = rng.choice(open_orders)
            if self.ask("/orders/%d/pay" % order, {}):
                self.paid.add(order)
        elif choice < 0.4 and open_orders:
            order = rng.choice(open_orders)
            self.cancelled.add(order)
            self.ask("/orders/%d/cancel" % order, {})
        elif choice < 0.5:
            self.ask("/stock")
        else:
            lines = {"sku%d" % k: rng.randrange(1, 5) for k in rng.sample(range(8), rng.randrange(1, 5))}
            answer = self.ask("/orders", {"email": "c%d@shop" % rng.randrange(20), "lines": lines})
            if answer:
                self.orders[answer["order"]] = lines

    def run(self):
        for _ in range(REQUESTS):
            self.step()


def load(shops, rng, meanwhile=lambda clients: None):
    clients = [Client(shop, k, rng.random()) for shop in shops for k in range(CLIENTS)]
    start = time.monotonic()
    for c in clients:
        c.start()
    meanwhile(clients)
    for c in clients:
        c.join()
    note("%d requests answered in %.1f s, %d cut off" % (
        sum(c.done for c in clients), time.monotonic() - start, sum(c.cut for c in clients)))
    return clients, [f for c in clients for f in c.failures]


def plain_shop(ws, python, rng):
    """The failures of the same load where nothing replicates."""
    shop = Shop(ws, python, "plain", None)
    shop.manage("migrate", "-v", "0")
    try:
        shop.serve()
        _, failures = load([shop], rng)
    finally:
        shop.kill()
    note("plain SQLite: %d failures, %d times locked" % (len(failures), shop.said().count("database is locked")))
    return shop.said().count("database is locked")


def wrong_orders(path, clients):
    """Orders that a client was told of and that are not there as placed."""
    lines = {}
    for order, sku, quantity in peek(path, "SELECT order_id, sku, quantity FROM shop_line l JOIN shop_product p "
                                     "ON p.id = l.product_id"):
        lines.setdefault(order, {})[sku] = quantity
    paid = {r[0] for r in peek(path, "SELECT id FROM shop_order WHERE paid")}
    wrong = []
    for c in clients:
        for order, wanted in c.orders.items():
            if order not in c.cancelled and lines.get(order) != wanted:
                wrong.append("%d: %s, not %s" % (order, lines.get(order), wanted))
            if order in c.paid and order not in c.cancelled and order not in paid:
                wrong.append("%d is not paid" % order)
    return wrong


def two_shops(ws, python, rng, plain_locked):
    nats = NatsServer(ws).start()
    a, b = [Shop(ws, python, name, nats.url) for name in ("a", "b")]
    a.manage("migrate", "-v", "0")
    check("migrations run with the extension loaded", peek(a.db, "SELECT count(*) FROM shop_product")[0][0] == 8, "no products")
    a.sql("SELECT marmot_watch_all()", "SELECT marmot_sync(20000)")
    # The second shop starts as a copy; what belongs to the first node alone stays behind.
    with sqlite3.connect(a.db) as db:
        db.execute("VACUUM INTO ?", (b.db,))
    db.close()
    with sqlite3.connect(b.db) as copy:
        for (table,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB '__marmot__*'").fetchall():
            copy.execute('DROP TABLE "%s"' % table)
    copy.close()
    b.sql("SELECT marmot_watch_all()", "SELECT marmot_sync(20000)")
    a.sql("SELECT marmot_policy('shop_product', 'stock', 'delta')")

    try:
        for shop in (a, b):
            shop.serve()

        def kill_a_worker(clients):
            wait_until(lambda: sum(c.done for c in clients) > CLIENTS * REQUESTS // 2, 60, "a quarter of the requests is answered")
            os.kill(rng.choice(a.workers()), signal.SIGKILL)
        clients, failures = load([a, b], rng, kill_a_worker)
        said = a.said() + b.said()
        locked = said.count("database is locked")
        check("every request is answered", not failures, "%s; %s" % (failures[:5], said[-1500:]))
        check("no \"database is locked\" beyond what plain SQLite gives", locked <= plain_locked,
              "%d, plain SQLite %d" % (locked, plain_locked))
        codes = [shop.stop() for shop in (a, b)]
        check("gunicorn ends by SIGTERM as without the extension", codes == [0, 0], codes)
    finally:
        for shop in (a, b):
            shop.kill()
    for shop in (a, b):
        synced = shop.sql("SELECT marmot_sync(20000)")
        check("%s: what the workers left is sent" % shop.name, synced == 1, synced)
    everywhere([a.db, b.db])
    ok("both shops end equal")
    wrong = wrong_orders(b.db, clients) + wrong_orders(a.db, clients)
    check("%d orders are whole on both" % sum(len(c.orders) for c in clients), not wrong, wrong[:5])
    left, sold = peek(b.db, "SELECT (SELECT sum(stock) FROM shop_product), (SELECT sum(quantity) FROM shop_line)")[0]
    check("stock counted on both nodes adds up (policy delta)", left + sold == 800000, "%d left, %d sold" % (left, sold))


def main():
    rng = seeded()
    try:
        python = environment()
    except Absent as e:
        print("skipped django_shop: %s" % e)
        ok("nothing to test without Django")
        finish()
    with Workspace() as ws:
        two_shops(ws, python, rng, plain_shop(ws, python, rng))
    finish()


main()
