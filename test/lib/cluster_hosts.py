"""More kinds of hosts for cluster tests, beside Node's Python.

    from cluster_hosts import *

    a = Shell(ws, "a", urls=nats.url, schema=SCHEMA)   # a real sqlite3 shell
    b = CHost(ws, "b", urls=nats.url, schema=SCHEMA)   # test/host/host.c, compiled here

Both answer lists of text lines: ask(sql), one(sql), sync(ms), status(), kill(),
quit(), start(); SqlError as Node raises it. Statements must be one line each.
A Workspace ends them as it ends its nodes.

everywhere(nodes, seconds) waits until all are equal, then checks the integrity
of each file. no_servers_left(ws) tells what nats-server the workspace still runs.
"""
import json
import os
import re
import shutil
import sqlite3
import subprocess

from marmot_test import (EXTENSION, SLOW, TOP, WRAP, Died, Node, SqlError, Timeout, die_with_parent, integrity,
                         note, plain_env, wait_equal, wait_until)

CC = os.environ.get("CC", "gcc")

OUR_LOG = re.compile(r"\S+Z marmot \w+: ")  # may quote an error of the network; no answer to a statement


class Console(Node):
    """A host that reads statements line by line and prints what they answer."""
    own_session = False  # leads one, so that what it leaves behind can be found

    def command(self):
        raise NotImplementedError

    def start(self):
        self.marks = 0
        with open(self.errors, "ab") as log:
            self.process = subprocess.Popen(WRAP + self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                            env=self.env, text=True, preexec_fn=die_with_parent,
                                            start_new_session=self.own_session)
        self.prepare()
        if self.config is not False:
            self.init()
            if self.watch:
                self.watch_all()
        return self

    def prepare(self):
        """What the host needs before its first statement."""

    def post(self, *lines):
        """Sends statements without waiting for their answers."""
        self.marks += 1
        try:
            self.process.stdin.write("".join(line + "\n" for line in lines) + ".print --mark %d--\n" % self.marks)
            self.process.stdin.flush()
        except BrokenPipeError as e:
            raise Died("%s has ended" % self.name) from e

    def answer(self):
        """The lines up to the mark of the last post."""
        mark = "--mark %d--" % self.marks
        lines = []
        while True:
            line = self.process.stdout.readline()
            if not line:
                with open(self.errors, errors="replace") as log:
                    raise Died("%s ended (%s): %s" % (self.name, self.process.wait(), log.read()[-800:]))
            if line.rstrip("\n") == mark:
                break
            lines.append(line.rstrip("\n"))
        with open(self.errors, errors="replace") as log:
            log.seek(self.read_errors)
            said = [t for t in log.read().splitlines() if ("rror: " in t or "rror near" in t) and not OUR_LOG.match(t)]
            self.read_errors = log.tell()
        wrong = [t for t in lines if t.startswith("Error: ")] + said
        if wrong:
            raise SqlError(" ".join(wrong))
        return lines

    def ask(self, *lines):
        self.post(*lines)
        return self.answer()

    def one(self, text, *args, conn=0):
        for value in args:
            text = text.replace("?", quoted(value), 1)
        lines = self.ask(text + ";")
        return lines[0] if lines else None

    def sync(self, ms=10000):
        return int(self.one("SELECT marmot_sync(%d)" % (ms * SLOW)))

    def quit(self):
        self.process.stdin.write(".quit\n")
        self.process.stdin.flush()
        code = self.process.wait(30 * SLOW)
        self.reap()
        if code != 0:
            raise Died("%s ended with %d" % (self.name, code))


class Shell(Console):
    """The sqlite3 shell."""

    def command(self):
        self.read_errors = os.path.getsize(self.errors)
        return ["sqlite3", "-batch", self.db]

    def prepare(self):
        self.ask(".timeout 5000", "SELECT load_extension('%s');" % self.extension)


class CHost(Console):
    """host.c with Debian's SQLite."""

    def command(self):
        self.read_errors = os.path.getsize(self.errors)
        program = os.path.join(os.path.dirname(self.db), "host")
        if not os.path.exists(program):
            subprocess.run([CC, "-O1", "-Wall", "-o", program, os.path.join(TOP, "test", "host", "host.c"),
                            "-lsqlite3"], check=True, env=plain_env())
        return [program, self.db, self.extension]


def quoted(value):
    """A value as an SQL literal."""
    if value is None:
        return "NULL"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, bytes):
        return "X'%s'" % value.hex()
    return "'%s'" % value.replace("'", "''")


def everywhere(nodes, seconds=30):
    """Equal databases, each sound; returns the common dump."""
    try:
        common = wait_equal(nodes, seconds)
    except Timeout:
        for n in nodes:
            if isinstance(n, Node) and n.process is not None:
                note("%s: %s" % (n.name, json.dumps(n.status())))
        raise
    for n in nodes:
        path = n.db if isinstance(n, Node) else n
        said = integrity(path)
        if said != "ok":
            raise Timeout("%s is damaged: %s" % (os.path.basename(path), said))
    return common


def peek(path, sql, *args):
    """Rows of a read-only look with a connection of its own, without the extension."""
    db = sqlite3.connect("file:%s?mode=ro" % path, uri=True, timeout=5)
    try:
        return db.execute(sql, args).fetchall()
    finally:
        db.close()


def servers_of(ws):
    """Process ids of the nats-servers whose command line names the workspace."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid, "rb") as f:
                words = f.read().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "nats-server" in os.path.basename(words[0]) and any(ws.dir in w for w in words):
            found.append(int(pid))
    return found


def no_servers_left(ws, seconds=5):
    wait_until(lambda: not servers_of(ws), seconds, "no nats-server of this test is left")
