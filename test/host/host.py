"""A host in Python: host.py DRIVER DATABASE EXTENSION, the protocol of README.

DRIVER is sqlite3 (the module of the interpreter that runs this), pysqlite3 or apsw.
"""
import os
import sys

DRIVER, FILE, EXTENSION = sys.argv[1:4]


def open_apsw(load):
    db = apsw.Connection(FILE)
    db.set_busy_timeout(5000)
    if load:
        db.enable_load_extension(True)
        db.load_extension(EXTENSION)
    return db


def open_dbapi(load):
    db = driver.connect(FILE, isolation_level=None, timeout=5)
    if load:
        db.enable_load_extension(True)
        db.load_extension(EXTENSION)
    return db


if DRIVER == "apsw":
    import apsw
    connect, error = open_apsw, apsw.Error
else:
    driver = __import__({"sqlite3": "sqlite3", "pysqlite3": "pysqlite3.dbapi2"}[DRIVER], fromlist=["connect"])
    connect, error = open_dbapi, driver.Error

first = connect(True)
second = None
for line in sys.stdin:
    line = line.rstrip("\n")
    if line == ".quit":
        break
    if line == ".exit":
        sys.stdout.flush()
        os._exit(0)
    if line.startswith(".print "):
        print(line[7:], flush=True)
        continue
    db = first
    if line.startswith(".other "):
        second = second or connect(False)
        db, line = second, line[7:]
    try:
        for row in db.execute(line):
            print("|".join("" if v is None else str(v) for v in row))
    except error as e:
        print("Error: %s" % e)
for db in (second, first):
    if db is not None:
        db.close()
