-- Bookkeeping of one node, in the node's own database. What the application's
-- connections write is WITHOUT ROWID: invisible to update_hook and
-- last_insert_rowid() (SPEC 2).

-- One row: what every captured commit reads.
CREATE TABLE __marmot__head (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation  INTEGER NOT NULL,            -- of what is captured from now on
    floor        INTEGER NOT NULL DEFAULT 0,  -- highest outbox id ever trimmed: ids never come back
    watch_all    INTEGER NOT NULL DEFAULT 0,  -- new tables are watched as they come
    capturing    INTEGER NOT NULL DEFAULT 1   -- 0 after marmot_stop: hooks stand by
);

-- Captured transactions and control messages, in commit order. Part 0 carries
-- the identity; further parts only data.
CREATE TABLE __marmot__outbox (
    id           INTEGER NOT NULL,
    part         INTEGER NOT NULL,
    kind         INTEGER,                     -- 0 transaction, 1 control
    incarnation  INTEGER,
    txid         BLOB,                        -- 16 random bytes
    at           INTEGER,                     -- commit time, ms since 1970: information only
    names        BLOB,                        -- table and column names of each group of the changeset
    data         BLOB,
    PRIMARY KEY (id, part)
) WITHOUT ROWID;

-- Before-images of pending transactions that were redone, by shard.
CREATE TABLE __marmot__undo (
    id           INTEGER NOT NULL,
    shard        INTEGER NOT NULL,
    clean        INTEGER NOT NULL,            -- the redo met exactly the old values
    data         BLOB NOT NULL,
    PRIMARY KEY (id, shard)
) WITHOUT ROWID;

-- When everything up to an outbox id had been echoed: for outbox_keep.
CREATE TABLE __marmot__echo (
    at           INTEGER PRIMARY KEY,         -- ms since 1970
    id           INTEGER NOT NULL
);

CREATE TABLE __marmot__meta (
    key          TEXT PRIMARY KEY,
    value
) WITHOUT ROWID;

-- Tables of this database and what this node does with them.
CREATE TABLE __marmot__table (
    name         TEXT PRIMARY KEY COLLATE NOCASE,
    first_name   TEXT NOT NULL,               -- decides the shard: a rename does not move it
    state        TEXT NOT NULL,               -- watched, unwatched, unsupported, stale, joining
    why          TEXT,
    joined_seq   INTEGER NOT NULL DEFAULT 0   -- first sequence not folded into it yet, 0 = not joined
) WITHOUT ROWID;

-- The replicated state of each shard (SPEC 4).
CREATE TABLE __marmot__position (
    shard        INTEGER PRIMARY KEY,
    seq          INTEGER NOT NULL,            -- last folded stream sequence
    digest       BLOB NOT NULL,               -- of that message
    created      TEXT NOT NULL,               -- the stream's creation stamp
    epoch        INTEGER NOT NULL
);
CREATE TABLE __marmot__origin (
    shard        INTEGER NOT NULL,
    node         INTEGER NOT NULL,
    incarnation  INTEGER NOT NULL,
    seq          INTEGER NOT NULL,            -- last accepted origin_seq
    txid         BLOB NOT NULL,
    outbox       INTEGER NOT NULL,            -- last outbox id that it covered
    PRIMARY KEY (shard, node, incarnation)
) WITHOUT ROWID;
CREATE TABLE __marmot__accepted (
    shard        INTEGER NOT NULL,
    node         INTEGER NOT NULL,
    incarnation  INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    txid         BLOB NOT NULL,
    PRIMARY KEY (shard, node, incarnation, seq)
) WITHOUT ROWID;
CREATE TABLE __marmot__watchlist (
    name         TEXT PRIMARY KEY COLLATE NOCASE,
    shard        INTEGER NOT NULL,
    seq          INTEGER NOT NULL             -- place of the watch message
) WITHOUT ROWID;

CREATE TABLE __marmot__policy (
    name         TEXT NOT NULL COLLATE NOCASE,
    col          TEXT NOT NULL COLLATE NOCASE,
    policy       INTEGER NOT NULL,            -- 0 last, 1 delta, 2 max, 3 min
    PRIMARY KEY (name, col)
) WITHOUT ROWID;

-- Parts of transactions whose last part has not come yet.
CREATE TABLE __marmot__part (
    shard        INTEGER NOT NULL,
    node         INTEGER NOT NULL,
    incarnation  INTEGER NOT NULL,
    number       INTEGER NOT NULL,
    txid         BLOB NOT NULL,
    count        INTEGER NOT NULL,
    sha256       BLOB NOT NULL,
    total        INTEGER NOT NULL,            -- bytes of all parts up to this one
    at           INTEGER NOT NULL,            -- the server's time stamp, ms since 1970
    data         BLOB NOT NULL,
    PRIMARY KEY (shard, node, incarnation, number)
) WITHOUT ROWID;

-- Local records: not part of the replicated state.
CREATE TABLE __marmot__conflict (
    id           INTEGER PRIMARY KEY,
    shard        INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    node         INTEGER NOT NULL,            -- whose message met the conflict
    at           INTEGER NOT NULL,
    kind         TEXT NOT NULL,
    name         TEXT NOT NULL,
    key          TEXT NOT NULL,               -- JSON
    lost         TEXT NOT NULL,               -- JSON: the losing values
    won          TEXT NOT NULL                -- JSON: the values that stayed
);
CREATE TABLE __marmot__ignored (
    shard        INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    node         INTEGER,
    at           INTEGER NOT NULL,
    reason       TEXT NOT NULL,
    PRIMARY KEY (shard, seq)
) WITHOUT ROWID;

-- Answers to verify messages, of every node, as the log has them.
CREATE TABLE __marmot__verify (
    id           BLOB NOT NULL,               -- of the call
    shard        INTEGER NOT NULL,
    node         INTEGER NOT NULL,
    name         TEXT NOT NULL,               -- of the table
    seq          INTEGER NOT NULL,            -- place of the verify message
    content      BLOB NOT NULL,               -- sum of row hashes
    rows         INTEGER NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (id, shard, node, name)
) WITHOUT ROWID;

-- What other processes ask of the one that replicates.
CREATE TABLE __marmot__request (
    id           INTEGER PRIMARY KEY,
    kind         TEXT NOT NULL,
    at           INTEGER NOT NULL,
    done         INTEGER NOT NULL DEFAULT 0,
    answer       TEXT
);
