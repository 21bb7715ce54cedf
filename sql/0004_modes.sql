-- How a table is captured when not as its database is: auto, hook, trigger.
ALTER TABLE __marmot__table ADD COLUMN capture TEXT;
