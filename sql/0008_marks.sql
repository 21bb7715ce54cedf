-- A random number of each row: copies of a file know by them what they noted alike.
ALTER TABLE __marmot__log ADD COLUMN mark INTEGER;
