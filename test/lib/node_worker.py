"""The process of one node in a test: a host program with Python's sqlite3.

Reads one JSON request a line from stdin and answers one JSON line on stdout:
  {"op": "open", "conn": N}                    another connection to the file
  {"op": "close", "conn": N}
  {"op": "sql", "conn": N, "sql": S, "args": [..]}   -> {"rows": [[..]], "changes": n}
  {"op": "many", "conn": N, "sql": S, "rows": [[..]]} one statement, many rows
  {"op": "txn", "conn": N, "steps": [[S, [..]], ..]}  BEGIN IMMEDIATE .. COMMIT
  {"op": "each", ..}                           the same, past what fails   -> {"rows": [[error], ..]}
  {"op": "quit"}                               closes all and ends
Errors come back as {"error": text}. Blobs travel as {"blob": hex}, infinities
as {"real": text}. Connection 0 is open from the start; every connection loads
the extension unless the worker was started with an empty path for it.
"""
import json
import math
import os
import sqlite3
import sys


def encode(value):
    if isinstance(value, bytes):
        return {"blob": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": repr(value)}
    return value


def decode(value):
    if isinstance(value, dict):
        return bytes.fromhex(value["blob"]) if "blob" in value else float(value["real"])
    return value


def connect(path, extension):
    slow = float(os.environ.get("MARMOT_TEST_SLOW") or 1)
    db = sqlite3.connect(path, isolation_level=None, timeout=5 * slow)
    if extension:
        db.enable_load_extension(True)
        db.load_extension(extension)
    return db


def transaction(db, steps):
    db.execute("BEGIN IMMEDIATE")
    try:
        for sql, args in steps:
            db.execute(sql, [decode(a) for a in args])
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def each(db, steps):
    """What fails is passed over; a conflict clause may end the transaction, and with it the rest."""
    failed = []
    db.execute("BEGIN IMMEDIATE")
    for sql, args in steps:
        try:
            db.execute(sql, [decode(a) for a in args]).fetchall()
        except sqlite3.Error as e:
            failed.append(["%s: %s" % (type(e).__name__, e)])
        if not db.in_transaction:
            return failed
    try:
        db.execute("COMMIT")
    except sqlite3.Error:
        db.execute("ROLLBACK")
        raise
    return failed


def answer(request, conns, path, extension):
    op, n = request["op"], request.get("conn", 0)
    if op == "open":
        conns[n] = connect(path, extension)
        return {"rows": []}
    if op == "close":
        conns.pop(n).close()
        return {"rows": []}
    db = conns[n]
    if op == "sql":
        cur = db.execute(request["sql"], [decode(a) for a in request.get("args", [])])
        rows = [[encode(v) for v in row] for row in cur.fetchall()]
        return {"rows": rows, "changes": cur.rowcount}
    if op == "many":
        db.execute("BEGIN IMMEDIATE")
        db.executemany(request["sql"], [[decode(v) for v in row] for row in request["rows"]])
        db.execute("COMMIT")
        return {"rows": []}
    if op == "txn":
        transaction(db, request["steps"])
        return {"rows": []}
    if op == "each":
        return {"rows": each(db, request["steps"])}
    raise ValueError("unknown op " + op)


def main():
    path, extension = sys.argv[1], sys.argv[2]
    os.environ.pop("LD_PRELOAD", None)  # a sanitizer's runtime is not for the server that the extension starts
    conns = {0: connect(path, extension)}
    print(json.dumps({"ready": sqlite3.sqlite_version}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "quit":
            break
        try:
            out = answer(request, conns, path, extension)
        except (sqlite3.Error, KeyError, ValueError, OverflowError) as e:
            out = {"error": "%s: %s" % (type(e).__name__, e)}
        print(json.dumps(out), flush=True)
    for db in conns.values():
        db.close()


main()
