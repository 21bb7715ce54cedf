"""A host whose SQLite is older than the floor is told so, and goes on.
marmot-test: parallel
"""
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403


def main():
    path = shutil.which("sqlcipher")
    if path is None:
        print("skipped sqlcipher (SQLite 3.15.2 of Debian): it is not installed")
        ok("nothing to test without an old SQLite")
        finish()
    with Workspace() as ws:
        done = subprocess.run([path, os.path.join(ws.dir, "old.db")], text=True, capture_output=True, timeout=60, check=False,
                              input=".load %s\nCREATE TABLE t(x);\nINSERT INTO t VALUES (7);\nSELECT x FROM t;\n" % EXTENSION)
        said = done.stdout + done.stderr
        check("an old SQLite is refused by version", "is too old: 3.37.0 or newer is needed" in said, said)
        check("its host goes on", done.stdout.split()[-1:] == ["7"], said)
    finish()


main()
