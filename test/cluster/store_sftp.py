#!/usr/bin/python3
"""Snapshots on SSH servers: OpenSSH with keys, rclone with a password. marmot-test: parallel limit=240"""
import os
from urllib.parse import quote

from marmot_test import *
from store_servers import *
from store_test import *


def with_sshd(ws):
    d = Sshd(ws).start()
    known = known_hosts(os.path.join(ws.dir, "known"), d.port, d.key)

    def at(port=d.port, query=None, user=d.user):
        query = query or "key=%s&fingerprint=%s" % (d.client, quote(fingerprint(d.key)))
        return "sftp://%s@127.0.0.1:%d%s/deep/er%%20one?%s" % (user, port, d.root, query)
    s = Store(ws, kind="sftp", sftp=at())
    the_usual(s, ws, "sshd")
    place = os.path.join(d.root, "deep", "er one")
    check("nothing is left on the server", os.listdir(place) == [], os.listdir(place))
    the_faults(lambda port, idle: Store(ws, kind="sftp", sftp=at(port), idle=idle), ws, "sshd", d.port)
    for name in (left_behind("x", 25), left_behind("y", 23)):
        with open(os.path.join(place, name), "w"):
            pass
    s.sweep()
    left = os.listdir(place)
    check("sweep takes old leftovers alone", not any(n.startswith("x.") for n in left) and any(n.startswith("y.") for n in left), left)

    small = filled(ws, "small", 10)
    by_file = Store(ws, kind="sftp", sftp=at(query="key=%s&known_hosts=%s" % (d.client, known)))
    by_file.put("a", small)
    check("the host key in a file of known ones", by_file.list() == {"a": 10}, by_file.list())
    nobody = os.path.join(ws.dir, "none")
    strange = Store(ws, kind="sftp", sftp=at(query="key=%s&known_hosts=%s" % (d.client, nobody)))
    fails("an unknown host key", lambda: strange.put("a", small), AUTH, "host key", nobody)
    other = Store(ws, kind="sftp", sftp=at(query="key=%s&fingerprint=%s" % (d.client, quote(fingerprint(d.client)))))
    fails("another host key", lambda: other.put("a", small), AUTH, "host key")
    home = os.path.join(ws.dir, "home")
    os.makedirs(os.path.join(home, ".ssh"))
    plain = Store(ws, kind="sftp", sftp=at(query="key=" + d.client), env={"HOME": home})
    fails("no known_hosts at all", lambda: plain.list(), AUTH, ".ssh/known_hosts")
    locked = Store(ws, kind="sftp", sftp=at(query="key=%s&known_hosts=%s" % (d.locked, known), user=d.user + ":" + quote("open sesame")))
    locked.put("b", small)
    check("a key with a passphrase", sorted(locked.list()) == ["a", "b"], locked.list())
    wrong = Store(ws, kind="sftp", sftp=at(query="key=%s&known_hosts=%s" % (d.locked, known), user=d.user + ":hush"))
    try:
        wrong.put("c", small)
        not_ok("a wrong passphrase", "no error")
    except StoreError as e:
        check("a wrong passphrase", e.rc == AUTH and "hush" not in e.text, e)
    under = Store(ws, kind="sftp", sftp="sftp://%s@127.0.0.1:%d/dev/null/x?key=%s&known_hosts=%s" % (d.user, d.port, d.client, known))
    fails("a directory that cannot be", lambda: under.put("a", small), (CANTOPEN, AUTH, 1), "/dev/null/x")
    with SmallDisk(ws) as disk:
        if disk.missing:
            note("skipped: a full disk (%s)" % disk.missing)
        else:
            f = Store(ws, kind="sftp", sftp="sftp://%s@127.0.0.1:%d%s/x?key=%s&known_hosts=%s" % (d.user, d.port, disk.path, d.client, known))
            f.put("kept", small)
            fails("a full disk there", lambda: f.put("kept", filled(ws, "large", 30 * MB)), (FULL, IOERR, 1), "kept")
            check("what was there stays", f.list() == {"kept": 10}, f.list())


with Workspace() as ws:
    if Sshd.missing():
        note("skipped: " + Sshd.missing())
    else:
        with_sshd(ws)
    if RcloneSftp.missing():
        note("skipped: " + RcloneSftp.missing())
    else:
        r = RcloneSftp(ws).start()
        hosts = known_hosts(os.path.join(ws.dir, "known-rclone"), r.port, r.key)
        url = "sftp://%s:%%s@127.0.0.1:%d/x?known_hosts=%s" % (USER, r.port, hosts)
        the_usual(Store(ws, kind="sftp", sftp=url % quote(PASSWORD)), ws, "rclone")
        bad = Store(ws, kind="sftp", sftp=url % "hush")
        fails("a wrong password", lambda: bad.put("a", filled(ws, "small", 10)), AUTH, "password")
    for url in ("sftp://host/x", "ftp://u@host/x", "sftp://u@host/x?fingerprint=SHA256:short", "sftp://u@host/~/x"):
        fails("no URL: " + url, lambda u=url: Store(ws, kind="sftp", sftp=u), MISUSE, "snapshot.sftp.url")
finish()
