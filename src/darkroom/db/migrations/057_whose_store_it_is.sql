-- Two machines with a folder each kept photos that the other one could not find: delivered, never shown, never paid
-- back. The store bears the database's mark since, and a process that finds another one, or none, does not start.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE store_mark (
    -- There is one.
    number BIGINT PRIMARY KEY DEFAULT 1 CHECK (number = 1),
    id UUID NOT NULL DEFAULT gen_random_uuid(),
    -- When the store was first seen to bear it. NULL: the next process that starts writes it.
    written_at TIMESTAMPTZ
);
INSERT INTO store_mark DEFAULT VALUES;
