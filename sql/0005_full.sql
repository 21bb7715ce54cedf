-- What a captured COMMIT does while the outbox is full: 0 nothing, 1 takes longer, 2 fails.
ALTER TABLE __marmot__head ADD COLUMN brake INTEGER NOT NULL DEFAULT 0;
