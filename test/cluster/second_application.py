"""A second, unrelated application finds the same server without configuration: it
stays out, untouched, and the first cluster does not notice; with a cluster name
of its own it works beside the first.
marmot-test: parallel
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
from marmot_test import *  # noqa: E402,F403
from cluster_hosts import *  # noqa: E402,F403

BOOKS = "CREATE TABLE Books(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO Books VALUES (1, 'first'), (3, 'third');"
OTHERS = {
    "no common table": "CREATE TABLE Songs(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO Songs VALUES (1, 'la');",
    "another schema": "CREATE TABLE Books(id INTEGER PRIMARY KEY, title TEXT, price REAL);"
                      "INSERT INTO Books VALUES (1, 'first', 1.5);",
    "another key": "CREATE TABLE Books(id INTEGER NOT NULL, title TEXT NOT NULL PRIMARY KEY);"
                   "INSERT INTO Books VALUES (1, 'first');",
    "other rows": "CREATE TABLE Books(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO Books VALUES (1, 'mine');",
    "fewer rows": "CREATE TABLE Books(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO Books VALUES (1, 'first');",
}


def refused(ws, case, schema, first):
    other = Node(ws, case.replace(" ", "_"), schema=schema)
    table = peek(other.db, "SELECT name FROM sqlite_schema WHERE name IN ('Books', 'Songs')")[0][0]
    before = peek(other.db, "SELECT * FROM %s" % table)
    try:
        other.wait_state("join_conflict", 5)
    except Timeout:
        note(other.status())
        raise
    status = other.status()
    check("%s: join_conflict that says what and what to do" % case,
          "cluster" in status["why"] and status["remedy"] != "", status)
    try:
        said = other.sync(2000)
    except SqlError as e:
        said = str(e)
    check("%s: marmot_sync is an error" % case, "join_conflict" in str(said) or "cluster" in str(said), said)
    title = other.one("SELECT title FROM %s LIMIT 1" % table)
    other.sql("INSERT INTO %s(id, title) VALUES (77, 'written in conflict')" % table)
    first.sql("INSERT INTO Books(title) VALUES (?)", "while " + case)
    first.sync()
    after = peek(other.db, "SELECT * FROM %s WHERE id <> 77" % table)
    check("%s: its rows are untouched" % case, before == after and (title is None or title == before[0][1]), after)
    check("%s: nothing of it reached the cluster" % case,
          first.one("SELECT count(*) FROM Books WHERE id = 77 OR title = 'written in conflict'") == 0, "it did")
    return other


def beside(ws, other, first, second):
    """The remedy that the status names, at the same database."""
    other.sql("SELECT marmot_stop()")
    other.config = {"cluster": "songs", "nats": {"bind_address": ws.bind_address}}
    other.init()
    other.watch_all()
    other.wait_state("live")
    # What was written in conflict is still to be sent: the founding content is without it.
    schema = "CREATE TABLE Songs(id INTEGER PRIMARY KEY, title TEXT);" + "".join(
        "INSERT INTO Songs VALUES (%d, '%s');" % row for row in other.sql("SELECT id, title FROM Songs WHERE id <> 77"))
    friend = Node(ws, "friend", config=other.config, schema=schema)
    friend.wait_state("live")
    for k in range(50):
        other.sql("INSERT INTO Songs(title) VALUES (?)", "song %d" % k)
        first.sql("INSERT INTO Books(title) VALUES (?)", "book %d" % k)
        friend.sql("UPDATE Songs SET title = title || '!' WHERE id = 1")
    for n in (other, friend, first, second):
        check("%s syncs beside the other cluster" % n.name, n.sync() == 1, n.status())
    songs = everywhere([other, friend])
    books = everywhere([first, second])
    check("each cluster has its own", list(songs) == ["Songs"] and list(books) == ["Books"] and
          len(songs["Songs"][1]) == 52 and len(books["Books"][1]) >= 51, "%s %s" % (list(songs), list(books)))
    return friend


def main():
    with Workspace() as ws:
        first = Node(ws, "first", schema=BOOKS)
        first.wait_state("live")
        second = Node(ws, "second", schema=BOOKS)
        second.wait_state("live")
        first.sql("INSERT INTO Books VALUES (2, 'second')")
        check("the first cluster works", first.sync() == 1, first.status())
        others = [refused(ws, case, schema, first) for case, schema in OTHERS.items()]
        check("the first cluster is unaffected", first.sync() == 1 and second.sync() == 1, first.status())
        everywhere([first, second])
        friend = beside(ws, others[0], first, second)
        for n in others + [friend, second, first]:
            n.quit()
        no_servers_left(ws)
        everywhere([first, second])
    finish()


main()
