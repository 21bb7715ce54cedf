-- When the server stored the message that a position names, ns since 1970; 0 = not known (store/position.h).
ALTER TABLE __marmot__position ADD COLUMN stamp INTEGER NOT NULL DEFAULT 0;
