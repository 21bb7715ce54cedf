-- Ids of the log count bytes up from minus what it may hold (store/log.h).
CREATE TABLE __marmot__room (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    bytes        INTEGER NOT NULL
);
INSERT INTO __marmot__room(one, bytes) VALUES (1, 1 << 30);
UPDATE __marmot__log SET id = id - (1 << 62);
