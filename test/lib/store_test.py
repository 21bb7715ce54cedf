"""Helpers for tests of the snapshot stores.

    s = Store(ws, kind="file", file=path)      # test/cluster/store_tool.c at the end of a pipe
    s.put("name", path)                        # StoreError (rc, text) after an error
    s.get("name", path) -> True, False when absent; list(prefix) -> {name: size}
    s.remove(name), s.sweep(), s.end(bytes), s.close()

    the_usual(s, ws, label)   # what every store must do: objects of 0 bytes, few and 30 MB, replacing, ...
    proxy = CutProxy(port)    # a TCP relay: cut_after(bytes) resets connections then, hold(True) forwards nothing
"""
import hashlib
import os
import random
import socket
import struct
import subprocess
import threading
import time

from marmot_test import EXTENSION, TOP, WRAP, bar, check, die_with_parent, plain_env

AUTH, BUSY, IOERR, CORRUPT, FULL, CANTOPEN, TOOBIG, MISUSE, INTERRUPT = 23, 5, 10, 11, 13, 14, 18, 21, 9
MB = 1024 * 1024


class StoreError(Exception):
    def __init__(self, rc, text):
        super().__init__("%d %s" % (rc, text))
        self.rc = rc
        self.text = text


def tool():
    variant = os.path.basename(os.path.dirname(EXTENSION)) if "MARMOT_SO" in os.environ else "release"
    path = os.path.join("build", variant, "test", "cluster", "store_tool")
    if not os.path.exists(os.path.join(TOP, path)):
        subprocess.run(["make", "-s", path], cwd=TOP, check=True, env=plain_env(), stdout=subprocess.DEVNULL)
    return os.path.join(TOP, path)


class Store:
    def __init__(self, ws, env=None, before=None, **options):
        def prepare():
            die_with_parent()
            if before:
                before()
        arguments = ["%s=%s" % pair for pair in options.items()]
        with open(os.path.join(ws.dir, "store.log"), "ab") as log:
            self.process = subprocess.Popen(WRAP + [tool()] + arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            text=True, env=dict(plain_env(), **(env or {})), preexec_fn=prepare)
        self.place = self.answer()

    def answer(self):
        line = self.process.stdout.readline().rstrip("\n")
        if line.startswith("error "):
            _, rc, text = line.split(" ", 2)
            raise StoreError(int(rc), text)
        if not (line == "ok" or line.startswith("ok ")):
            raise RuntimeError("store_tool ended (%s): %r" % (self.process.wait(), line))
        return line[3:]

    def ask(self, *words):
        self.process.stdin.write(" ".join(str(w) for w in words) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def put(self, name, path):
        return self.ask("put", name, path)

    def get(self, name, path, most=1 << 60):
        return self.ask("get", name, path, most).startswith("1")

    def listing(self, prefix=""):
        return [o.split(":") for o in self.ask("list", prefix).split()]

    def list(self, prefix=""):
        return {o[0]: int(o[1]) for o in self.listing(prefix)}

    def remove(self, name):
        return self.ask("remove", name)

    def sweep(self):
        return self.ask("sweep")

    def end(self, after):
        return self.ask("end", after)

    def close(self):
        self.process.stdin.close()
        return self.process.wait()


def fails(name, call, rc, *parts):
    """The call must fail with one of the codes, and its message have the parts."""
    codes = rc if isinstance(rc, tuple) else (rc,)
    try:
        call()
    except StoreError as e:
        return check(name, e.rc in codes and all(p in e.text for p in parts), "%s; wanted %s %s" % (e, codes, parts))
    return check(name, False, "no error")


def left_behind(name, hours):
    """What an upload is called that began so long ago and never ended."""
    return "%s.part-%012x%08x" % (name, int((time.time() - hours * 3600) * 1000), 7)


def filled(ws, name, size, seed=1):
    path = os.path.join(ws.dir, name)
    with open(path, "wb") as f:
        f.write(random.Random(seed).randbytes(size))
    return path


def digest(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        for piece in iter(lambda: f.read(MB), b""):
            h.update(piece)
    return h.hexdigest()


def same(a, b):
    return digest(a) == digest(b)


def the_faults(make, ws, label, port, idle=3000):
    """A connection that is cut or hangs; make(port, idle) opens a store by way of a port."""
    back = os.path.join(ws.dir, "back")
    small, large = filled(ws, "small", 1000), filled(ws, "large", 30 * MB)
    proxy = CutProxy(port)
    s = make(proxy.port, idle)
    s.put("first", large)
    proxy.cut_after(12 * MB)
    s.put("cut", large)
    check(label + ": an upload that is cut is made whole", proxy.cuts == 1 and s.get("cut", back) and same(large, back), proxy.cuts)
    proxy.cut_after(12 * MB)
    check(label + ": a download that is cut goes on", s.get("first", back) and same(large, back) and proxy.cuts == 2, proxy.cuts)
    proxy.cut_after(3 * MB, times=99)
    fails(label + ": one that is cut always", lambda: s.put("never", large), (IOERR, CANTOPEN, AUTH), "never")
    proxy.cut_after(1 << 40)
    check(label + ": and is not seen", sorted(s.list()) == ["cut", "first"], s.list())
    slow = make(proxy.port, 700)
    crawling = filled(ws, "crawling", 3 * MB)
    proxy.slow(2 * MB)
    s.put("crawled", crawling)  # most of it lies in the sockets' buffers at once
    check(label + ": a slow server is waited for", slow.get("crawled", back) and same(crawling, back), "other bytes")
    proxy.slow(0)
    slow.put("second", small)
    proxy.hold(True)
    begin = time.monotonic()
    fails(label + ": a server that hangs", lambda: slow.get("first", back), (BUSY, CANTOPEN, IOERR), "first")
    bar(label + ": is given up in time", time.monotonic() - begin < 20, time.monotonic() - begin)
    proxy.hold(False)
    for name in s.list():
        s.remove(name)
    nobody = make(unused_port(), idle)
    fails(label + ": nobody there", lambda: nobody.put("a", small), CANTOPEN, "object a")


def unused_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


class SmallDisk:
    """A file system of 8 MB, by a mount of its own; `missing` says why there is none."""

    def __init__(self, ws):
        self.path = os.path.join(ws.dir, "small-disk")
        os.mkdir(self.path)
        r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=1777", "none", self.path], capture_output=True, text=True, check=False)
        self.missing = r.stderr.strip() if r.returncode else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if not self.missing:
            subprocess.run(["umount", "-l", self.path], check=False)


def the_usual(s, ws, label, big=30 * MB):
    """What every store must do; ends with no object there."""
    back = os.path.join(ws.dir, "back")
    empty, small, large = filled(ws, "empty", 0), filled(ws, "small", 1000), filled(ws, "large", big)
    check(label + ": a place that is not there yet has no objects", s.list() == {}, s.list())
    check(label + ": an absent object is no error", not s.get("none", back), "found")
    for name, path in (("empty", empty), ("a-1.json", small), ("a-1.data_2.zst", large)):
        s.put(name, path)
        check("%s: %s comes back" % (label, name), s.get(name, back) and same(path, back), "other bytes")
    check(label + ": the list", s.list() == {"empty": 0, "a-1.json": 1000, "a-1.data_2.zst": big}, s.list())
    check(label + ": the list by prefix", sorted(s.list("a-1.")) == ["a-1.data_2.zst", "a-1.json"], s.list("a-1."))
    s.put("a-1.data_2.zst", small)
    check(label + ": an object is replaced", s.get("a-1.data_2.zst", back) and same(small, back), "other bytes")
    fails(label + ": more than was expected", lambda: s.get("a-1.json", back, 999), TOOBIG, "a-1.json", "999")
    for name in ("", ".hidden", "a/b", "a b", "x" * 129, "a.part-b"):
        if " " not in name and name:
            fails("%s: no object is named %s" % (label, name[:20]), lambda n=name: s.put(n, small), MISUSE)
    s.end(10 * MB)
    fails(label + ": an upload that is ended", lambda: s.put("ended", large), INTERRUPT, "ended")
    s.end(-1)
    s.put("later", large)
    s.end(5 * MB)
    fails(label + ": a download that is ended", lambda: s.get("later", back), INTERRUPT, "later")
    s.end(-1)
    check(label + ": nothing of the ended one is seen", sorted(s.list()) == ["a-1.data_2.zst", "a-1.json", "empty", "later"], s.list())
    s.sweep()
    check(label + ": sweep leaves objects alone", s.get("later", back) and same(large, back), "other bytes")
    for name in s.list():
        s.remove(name)
    check(label + ": removed", s.list() == {} and not s.get("empty", back), s.list())
    s.remove("empty")
    s.put("large", large)
    rss = int(s.ask("get", "large", back, 1 << 40).split("rss=")[1])
    check(label + ": what comes back is the same", same(large, back), "it differs")
    bar(label + ": memory stays small", rss < 24000, "%d KiB" % rss)
    s.remove("large")


class CutProxy:
    """Relays one port; bytes are counted over all connections and both ways."""

    def __init__(self, target):
        self.target = target
        self.limit = None
        self.count = 0
        self.cuts = 0
        self.pace = 0
        self.held = threading.Event()
        self.held.set()
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def cut_after(self, count, times=1):
        """Resets a connection each time that many bytes have passed; `times` in all."""
        with self.lock:
            self.limit, self.count, self.times = count, 0, times

    def slow(self, pace):
        """So many bytes a second in each direction; 0 = as fast as they come."""
        self.pace = pace

    def hold(self, on):
        if on:
            self.held.clear()
        else:
            self.held.set()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            threading.Thread(target=self.both, args=(client, server), daemon=True).start()

    def both(self, client, server):
        """A socket is closed when nobody reads it any more: its number may be another's then."""
        back = threading.Thread(target=self.relay, args=(server, client), daemon=True)
        back.start()
        self.relay(client, server)
        back.join()
        client.close()
        server.close()

    def over(self, n):
        with self.lock:
            self.count += n
            if self.limit is None or self.count < self.limit:
                return False
            self.cuts += 1
            self.count = 0
            self.times -= 1
            if self.times <= 0:
                self.limit = None
            return True

    def relay(self, a, b):
        try:
            while True:
                data = a.recv(65536)
                self.held.wait()
                if self.pace:
                    time.sleep(len(data) / self.pace)
                if not data:
                    b.shutdown(socket.SHUT_WR)
                    return
                if self.over(len(data)):
                    for s in (a, b):
                        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        s.shutdown(socket.SHUT_RDWR)
                    return
                b.sendall(data)
        except OSError:
            for s in (a, b):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
