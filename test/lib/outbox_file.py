"""What a database's outbox holds, read without the extension: its rows, its
batches and its inbox (the layout is in ext/store/inbox.h)."""
import sqlite3
import struct

INBOX_HEAD, RECORD = 16, struct.Struct("<II16sqqI")  # the layout in ext/store/inbox.h


def records(log, first, at):
    """(id, kind, commit time in ms) of each captured transaction in the bytes of an inbox."""
    out, number = [], first
    while at + 4 <= len(log) and log[at:at + 4] != bytes(4):
        size, kind, _, _, time_ms, _ = RECORD.unpack_from(log, at)
        if kind != 255:
            out.append((number, kind, time_ms))
        at, number = at + size, number + 1
    return out


def outbox(db):
    """What waits in the outbox of a database (a path or a connection), or lingers there:
    [(id, kind, commit time in ms)]."""
    look = db if isinstance(db, sqlite3.Connection) else sqlite3.connect("file:%s?mode=ro" % db, uri=True, timeout=10)
    try:
        out = []
        for row, kind, at, data in look.execute(
                "SELECT id, kind, at, data FROM __marmot__outbox WHERE part = 0 ORDER BY id").fetchall():
            out += records(data, row, 0) if kind == 2 else [(row, kind, at)]
        log = look.execute("SELECT log FROM __marmot__inbox").fetchone()[0]
        return out + records(log, struct.unpack_from("<q", log)[0], INBOX_HEAD)
    finally:
        if look is not db:
            look.close()


def transactions(db):
    """How many transactions of the application it holds."""
    return sum(kind == 0 for _, kind, _ in outbox(db))
