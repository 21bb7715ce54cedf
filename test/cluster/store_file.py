#!/usr/bin/python3
"""Snapshots in a directory. marmot-test: parallel"""
import os
import resource
import signal

from marmot_test import *
from store_test import *


def small_files_only():
    """Files of this process end at 1 MiB, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MB, MB))


with Workspace() as ws:
    place = os.path.join(ws.dir, "deep", "er", "snapshots")
    s = Store(ws, kind="file", file=place)
    check("the place is told", s.place == "file " + place, s.place)
    the_usual(s, ws, "file")
    check("nothing is left in the directory", os.listdir(place) == [], os.listdir(place))

    s.put("kept", filled(ws, "first", 3000))
    check("others of the machine cannot read it", os.stat(os.path.join(place, "kept")).st_mode & 0o007 == 0, "mode")
    large = filled(ws, "large", 4 * MB)
    full = Store(ws, before=small_files_only, kind="file", file=place)
    fails("a full disk there", lambda: full.put("kept", large), FULL, "object kept", "make room")
    check("what was there before stays", s.get("kept", os.path.join(ws.dir, "back")) and os.listdir(place) == ["kept"],
          os.listdir(place))
    s.put("large", large)
    fails("a full disk here", lambda: full.get("large", os.path.join(ws.dir, "back")), FULL, "local copy")

    old = os.path.join(place, left_behind("x", hours=25))
    young = os.path.join(place, left_behind("y", hours=23))
    for path in (old, young):
        with open(path, "w") as f:
            f.write("left by an upload that was killed")
    s.sweep()
    check("sweep takes old leftovers alone", not os.path.exists(old) and os.path.exists(young), os.listdir(place))
    check("leftovers are no objects", sorted(s.list()) == ["kept", "large"], s.list())

    with open(os.path.join(ws.dir, "no-directory"), "w"):
        pass
    t = Store(ws, kind="file", file=os.path.join(ws.dir, "no-directory", "x"))
    fails("a place that cannot be", lambda: t.put("a", large), CANTOPEN, "snapshot.file.path")
    fails("a relative place", lambda: Store(ws, kind="file", file="snapshots"), MISUSE, "absolute")
    fails("no kind of store", lambda: Store(ws, kind="ftp"), MISUSE, "ftp")
    check("the tool ends well", s.close() == 0 and full.close() == 0, "exit code")
finish()
