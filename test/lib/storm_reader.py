"""A reader without the extension that looks at one database all the time.

    storm_reader.py DATABASE TOTAL

The sum of all balances is TOTAL in every committed state of every node: a reader
that ever sees another sum saw half a transaction. Ends with the number of looks
when stdin closes, with 1 at the first wrong sum.
"""
import json
import select
import sqlite3
import sys

SUM = "SELECT (SELECT sum(balance) FROM account) + (SELECT sum(balance) FROM vault)"


def main():
    db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=5)
    db.execute("PRAGMA query_only=1")
    looks = changes = 0
    last = None
    while not select.select([0], [], [], 0.002)[0]:
        try:
            total = db.execute(SUM).fetchone()[0]
            version = db.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.OperationalError as e:
            if "locked" not in str(e):
                raise
            continue
        looks += 1
        changes += version != last
        last = version
        if total != int(sys.argv[2]):
            rows = [db.execute("SELECT * FROM " + t).fetchall() for t in ("account", "vault")]
            print(json.dumps({"wrong": total, "looks": looks, "now": rows}), flush=True)
            sys.exit(1)
    print(json.dumps({"looks": looks, "changes": changes}), flush=True)


main()
