#!/usr/bin/python3
"""Snapshots on WebDAV servers: Apache with either kind of password, by TLS, and rclone. marmot-test: parallel limit=240"""
import os
from urllib.parse import quote

from marmot_test import *
from store_servers import *
from store_test import *

LOGIN = "login=%s&secret=%s" % (USER, quote(PASSWORD))


def at(server, port=None, query=LOGIN, directory="/deep/er%20one"):
    url = server.url if port is None else server.url.replace(":%d" % server.port, ":%d" % port)
    return "%s?dir=%s&%s" % (url, directory, query)


def with_apache(ws):
    a = Apache(ws).start()
    s = Store(ws, kind="webdav", webdav=at(a))
    check("the place without the password", s.place == "webdav %s/deep/er%%20one/" % a.url, s.place)
    the_usual(s, ws, "apache")
    check("nothing is left on the server", os.listdir(os.path.join(a.root, "deep", "er one")) == [], "leftovers")
    the_faults(lambda port, idle: Store(ws, kind="webdav", webdav=at(a, port), idle=idle), ws, "apache", a.port)
    place = os.path.join(a.root, "deep", "er one")
    for name in (left_behind("x", 25), left_behind("y", 23)):
        with open(os.path.join(place, name), "w"):
            pass
    s.sweep()
    check("sweep takes old leftovers", sum(n.startswith("x.part-") for n in os.listdir(place)) == 0, os.listdir(place))
    check("and no others", any(n.startswith("y.part-") for n in os.listdir(place)), os.listdir(place))

    small = filled(ws, "small", 10)
    bad = Store(ws, kind="webdav", webdav=at(a, query="login=u&secret=hush"))
    fails("a wrong password", lambda: bad.put("a", small), AUTH, "401", "secret")
    try:
        bad.list()
    except StoreError as e:
        check("the password is in no message", "hush" not in e.text, e.text)
    gone = Store(ws, kind="webdav", webdav=at(a).replace("/dav?", "/elsewhere?"))
    fails("an absent root", lambda: gone.put("a", small), (CANTOPEN, 1), "/elsewhere")
    d = Apache(ws, digest=True).start()
    the_usual(Store(ws, kind="webdav", webdav=at(d)), ws, "digest")
    cert, key = authority(ws)
    t = Apache(ws, tls=(cert, key)).start()
    known = Store(ws, env={"SSL_CERT_FILE": cert}, kind="webdav", webdav=at(t))
    known.put("a", small)
    check("by TLS", known.list() == {"a": 1000}, known.list())
    stranger = Store(ws, kind="webdav", webdav=at(t))
    fails("an authority that nobody knows", lambda: stranger.put("a", small), AUTH, "ca-certificates")


def full_disk(ws):
    with SmallDisk(ws) as disk:
        if disk.missing:
            note("skipped: a full disk (%s)" % disk.missing)
            return
        a = Apache(ws, root=disk.path).start()
        s = Store(ws, kind="webdav", webdav=at(a))
        small = filled(ws, "small", 10)
        s.put("kept", small)
        fails("a full disk there", lambda: s.put("kept", filled(ws, "large", 30 * MB)), (FULL, IOERR), "kept")
        check("what was there stays", s.list() == {"kept": 10}, s.list())
        a.stop()


with Workspace() as ws:
    if Apache.missing():
        note("skipped: " + Apache.missing())
    else:
        with_apache(ws)
        full_disk(ws)
    if RcloneDav.missing():
        note("skipped: " + RcloneDav.missing())
    else:
        r = RcloneDav(ws).start()
        url = "http://%s:%s@127.0.0.1:%d/?dir=x" % (USER, quote(PASSWORD), r.port)
        the_usual(Store(ws, kind="webdav", webdav=url), ws, "rclone")
    for url in ("ftp://host/?login=a&secret=b", "https://", "host/path", "https://u:hush@ho st/"):
        if " " not in url:
            fails("no URL: " + url, lambda u=url: Store(ws, kind="webdav", webdav=u), MISUSE, "snapshot.webdav.url")
finish()
