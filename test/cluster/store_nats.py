#!/usr/bin/python3
"""Snapshots in the object store of NATS; where the `nats` tool is on PATH, read and written by it, too.
marmot-test: parallel limit=240"""
import os
import shutil
import subprocess

from marmot_test import *
from store_test import *


def with_tool(ws, nats, s):
    tool = shutil.which("nats")
    if not tool:
        note("skipped: the nats tool is not installed")
        return
    small, large, back = filled(ws, "small", 1000), filled(ws, "large", 3 * MB), os.path.join(ws.dir, "back")

    def run(*words):
        r = subprocess.run([tool, "-s", nats.url, "object"] + list(words), capture_output=True, text=True, check=False, cwd=ws.dir,
                           env=dict(plain_env(), HOME=ws.dir, XDG_CONFIG_HOME=ws.dir))
        return r.returncode == 0 or note(r.stderr or r.stdout)
    s.put("ours", large)
    check("the tool reads what was stored here", run("get", "snaps", "ours", "--force", "--output", back) and same(large, back), "other bytes")
    check("the tool stores", run("put", "snaps", small, "--name", "theirs", "--no-progress", "--force"), "put")
    check("what the tool stored is read", s.get("theirs", back) and same(small, back), "other bytes")
    check("and listed", s.list() == {"ours": 3 * MB, "theirs": 1000}, s.list())
    check("the tool removes", run("rm", "snaps", "ours", "--force") and s.list() == {"theirs": 1000}, s.list())


with Workspace() as ws:
    nats = NatsServer(ws).start()
    s = Store(ws, kind="nats", nats=nats.url, bucket="snaps")
    check("the place", s.place == "nats bucket snaps", s.place)
    the_usual(s, ws, "nats")
    the_faults(lambda port, idle: Store(ws, kind="nats", nats="nats://127.0.0.1:%d" % port, bucket="snaps", idle=idle), ws, "nats", nats.port)
    with_tool(ws, nats, s)
    s.sweep()
    fails("no name of a bucket", lambda: Store(ws, kind="nats", nats=nats.url, bucket="a.b"), MISUSE, "snapshot.nats.bucket")

    guarded = NatsServer(ws, config='authorization { user: "u", password: "hush" }\n').start()
    bad = Store(ws, kind="nats", nats=guarded.url, bucket="snaps", user="u", password="wrong")
    fails("a wrong password", lambda: bad.put("a", filled(ws, "small", 10)), AUTH, "nats.user_name")
    good = Store(ws, kind="nats", nats=guarded.url, bucket="snaps", user="u", password="hush")
    good.put("a", filled(ws, "small", 10))
    check("the right one", good.list() == {"a": 10}, good.list())

    tight = NatsServer(ws, jetstream=False, config='jetstream { store_dir: "%s/tight", max_mem: 1MB, max_file: 8MB }\n' % ws.dir).start()
    t = Store(ws, kind="nats", nats=tight.url, bucket="snaps")
    t.put("kept", filled(ws, "small", 10))
    fails("a full server", lambda: t.put("kept", filled(ws, "large", 30 * MB)), FULL, "object kept", "make room")
    check("what was there stays", t.list() == {"kept": 10}, t.list())
finish()
