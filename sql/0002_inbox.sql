-- Small captured transactions wait in one preallocated blob, written in place:
-- a commit dirties one page of it and no b-tree ever splits. When it is full
-- it becomes one row of the outbox (kind 2), whose `last` is its highest id.
CREATE TABLE __marmot__inbox (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    log          BLOB NOT NULL
);
INSERT INTO __marmot__inbox(one, log) VALUES (1, zeroblob(32768));
ALTER TABLE __marmot__outbox ADD COLUMN last INTEGER;
