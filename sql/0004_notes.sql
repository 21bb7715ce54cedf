-- Where a trigger notes what it seldom has to note: a view of the width that it
-- needs, whose own trigger writes the log. SQLite allots and clears the
-- registers of a trigger's whole body each time it fires, also when its WHEN
-- says no; those of the log's INSERT are then not among them. The views name no
-- table of the application: whoever drops or renames one meets nothing here.
CREATE VIEW IF NOT EXISTS __marmot__note1(source, kind, v0) AS SELECT NULL, NULL, NULL;
CREATE TRIGGER IF NOT EXISTS __marmot__note1_put INSTEAD OF INSERT ON __marmot__note1 BEGIN
    INSERT INTO __marmot__log(id, source, kind, v0)
    VALUES ((SELECT ifnull(max(id), 0) + 1 FROM __marmot__log), NEW.source, NEW.kind, NEW.v0);
END;
CREATE VIEW IF NOT EXISTS __marmot__note2(source, kind, v0, v1) AS SELECT NULL, NULL, NULL, NULL;
CREATE TRIGGER IF NOT EXISTS __marmot__note2_put INSTEAD OF INSERT ON __marmot__note2 BEGIN
    INSERT INTO __marmot__log(id, source, kind, v0, v1)
    VALUES ((SELECT ifnull(max(id), 0) + 1 FROM __marmot__log), NEW.source, NEW.kind, NEW.v0, NEW.v1);
END;
CREATE VIEW IF NOT EXISTS __marmot__note4(source, kind, v0, v1, v2, v3)
AS SELECT NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER IF NOT EXISTS __marmot__note4_put INSTEAD OF INSERT ON __marmot__note4 BEGIN
    INSERT INTO __marmot__log(id, source, kind, v0, v1, v2, v3)
    VALUES ((SELECT ifnull(max(id), 0) + 1 FROM __marmot__log), NEW.source, NEW.kind,
            NEW.v0, NEW.v1, NEW.v2, NEW.v3);
END;
CREATE VIEW IF NOT EXISTS __marmot__note8(source, kind, v0, v1, v2, v3, v4, v5, v6, v7)
AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER IF NOT EXISTS __marmot__note8_put INSTEAD OF INSERT ON __marmot__note8 BEGIN
    INSERT INTO __marmot__log(id, source, kind, v0, v1, v2, v3, v4, v5, v6, v7)
    VALUES ((SELECT ifnull(max(id), 0) + 1 FROM __marmot__log), NEW.source, NEW.kind,
            NEW.v0, NEW.v1, NEW.v2, NEW.v3, NEW.v4, NEW.v5, NEW.v6, NEW.v7);
END;
CREATE VIEW IF NOT EXISTS __marmot__note16(source, kind, v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13,
                                           v14, v15)
AS SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL;
CREATE TRIGGER IF NOT EXISTS __marmot__note16_put INSTEAD OF INSERT ON __marmot__note16 BEGIN
    INSERT INTO __marmot__log(id, source, kind, v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, v11, v12, v13, v14, v15)
    VALUES ((SELECT ifnull(max(id), 0) + 1 FROM __marmot__log), NEW.source, NEW.kind,
            NEW.v0, NEW.v1, NEW.v2, NEW.v3, NEW.v4, NEW.v5, NEW.v6, NEW.v7, NEW.v8, NEW.v9, NEW.v10, NEW.v11, NEW.v12,
            NEW.v13, NEW.v14, NEW.v15);
END;
