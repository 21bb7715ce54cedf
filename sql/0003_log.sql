-- Changes of writers that our hook does not see: triggers on the watched tables
-- note them here (capture/trigger.h). WITHOUT ROWID: invisible to the
-- application's update_hook and last_insert_rowid(). Ids order the rows until
-- they are moved to the outbox; then they begin anew.
CREATE TABLE __marmot__log (
    id           INTEGER NOT NULL PRIMARY KEY,
    source       INTEGER NOT NULL,            -- the number in the trigger's name
    kind         INTEGER NOT NULL,            -- enum mm_log_kind
    v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15
) WITHOUT ROWID;

-- What the triggers of a number were made for. Renames rewrite the triggers'
-- own text, which counts while they are there.
CREATE TABLE __marmot__source (
    id           INTEGER NOT NULL PRIMARY KEY,
    name         TEXT NOT NULL,               -- of the table
    cols         BLOB NOT NULL                -- column names in the order of the values, a NUL behind each
) WITHOUT ROWID;
