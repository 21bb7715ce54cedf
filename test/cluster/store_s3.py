#!/usr/bin/python3
"""Snapshots in a bucket of OpenStack's Swift, by its S3 face. marmot-test: parallel limit=240"""
import os

from marmot_test import *
from store_servers import *
from store_test import *


def with_swift(ws):
    w = Swift(ws).start()
    w.bucket("snaps")
    place = {"kind": "s3", "endpoint": w.endpoint, "bucket": "snaps", "path": "a/b c+d", "access": w.access, "secret": w.secret}
    s = Store(ws, **place)
    check("the place", s.place == "s3 http://%s/snaps/a/b c+d/" % w.endpoint, s.place)
    the_usual(s, ws, "swift")
    the_faults(lambda port, idle: Store(ws, **dict(place, endpoint="127.0.0.1:%d" % port, idle=idle)), ws, "swift", w.port)
    small = filled(ws, "small", 10)
    root = Store(ws, **dict(place, path=""))
    root.put("top", small)
    check("without a path", root.list() == {"top": 10} and s.list() == {}, root.list())
    fails("a wrong secret", lambda: Store(ws, **dict(place, secret="hush")).put("a", small), AUTH, "SignatureDoesNotMatch", "snapshot.s3.access_key")
    try:
        Store(ws, **dict(place, secret="hush")).list()
        not_ok("a wrong secret is noticed by list", "no error")
    except StoreError as e:
        check("the secret is in no message", "hush" not in e.text and e.rc == AUTH, e)
    absent = Store(ws, **dict(place, bucket="absent"))
    fails("an absent bucket, put", lambda: absent.put("a", small), CANTOPEN, "bucket absent is absent", "snapshot.s3.bucket")
    fails("an absent bucket, list", absent.list, CANTOPEN, "snapshot.s3.bucket")
    fails("another region", lambda: Store(ws, **dict(place, region="eu-west-1")).put("a", small), (AUTH, 1), "region")
    for key, value in (("endpoint", "ftp://x"), ("endpoint", "host:70000"), ("bucket", "a/b"), ("access", ""), ("secret", "")):
        fails("no %s: %r" % (key, value), lambda k=key, v=value: Store(ws, **dict(place, **{k: v})), MISUSE, "snapshot.s3.")


def full_disk(ws):
    with SmallDisk(ws) as disk:
        if disk.missing:
            note("skipped: a full disk (%s)" % disk.missing)
            return
        w = Swift(ws, root=disk.path).start()
        w.bucket("snaps")
        s = Store(ws, kind="s3", endpoint=w.endpoint, bucket="snaps", path="", access=w.access, secret=w.secret)
        s.put("kept", filled(ws, "small", 10))
        fails("a full disk there", lambda: s.put("kept", filled(ws, "large", 30 * MB)), (FULL, IOERR), "kept")
        check("what was there stays", s.list() == {"kept": 10}, s.list())
        w.stop()


with Workspace() as ws:
    if Swift.missing():
        note("skipped: " + Swift.missing())
        ok("skipped")
    else:
        with_swift(ws)
        full_disk(ws)
finish()
