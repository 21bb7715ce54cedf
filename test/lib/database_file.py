"""Whole database files, read by a connection without the extension, and compared."""
import sqlite3


def typed(value):
    """Orders and compares by type first, then by value; NaN-free, -0.0 kept apart."""
    if value is None:
        return (0, "")
    if isinstance(value, int):
        return (1, value)
    if isinstance(value, float):
        return (2, value.hex())
    if isinstance(value, str):
        return (3, value)
    return (4, value.hex())


def dump(path):
    """All user tables of a file: {table: (columns, sorted rows)}. Own connection,
    without the extension; one read transaction, so the picture is of one moment."""
    db = sqlite3.connect("file:%s?mode=ro" % path, uri=True, isolation_level=None, timeout=5)
    db.text_factory = lambda b: b.decode("utf-8", "surrogateescape")
    try:
        db.execute("BEGIN")
        names = [r[0] for r in db.execute(
            "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
            "AND name NOT LIKE '\\_\\_marmot\\_\\_%' ESCAPE '\\' ORDER BY name")]
        out = {}
        for name in names:
            cur = db.execute('SELECT * FROM "%s"' % name.replace('"', '""'))
            columns = [d[0] for d in cur.description]
            out[name] = (columns, sorted(tuple(typed(v) for v in row) for row in cur))
        return out
    finally:
        db.close()


def difference(a, b):
    """One line that says where two dumps differ; empty when they are equal."""
    for name in sorted(set(a) | set(b)):
        if name not in a or name not in b:
            return "table %s is missing on one side" % name
        if a[name][0] != b[name][0]:
            return "columns of %s: %s and %s" % (name, a[name][0], b[name][0])
        left, right = set(a[name][1]), set(b[name][1])
        if a[name][1] != b[name][1]:
            return "%s: %d and %d rows, only left %s, only right %s" % (
                name, len(a[name][1]), len(b[name][1]), sorted(left - right)[:3], sorted(right - left)[:3])
    return ""


def integrity(path):
    """The text of PRAGMA integrity_check: 'ok' when all is well."""
    db = sqlite3.connect(path, timeout=5)
    try:
        return "; ".join(r[0] for r in db.execute("PRAGMA integrity_check"))
    finally:
        db.close()
