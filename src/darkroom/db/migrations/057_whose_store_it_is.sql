-- Two machines with a folder each kept photos that the other one could not find: delivered, never shown, never paid
-- back. The store bears a mark since, and a process that finds another one, or none, does not start.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE store_mark (
    -- There is one.
    number BIGINT PRIMARY KEY DEFAULT 1 CHECK (number = 1),
    -- This database's own; with it stands in the store:
    database_id UUID NOT NULL DEFAULT gen_random_uuid(),
    -- which of all stores that were ever marked for it is the one. NULL: none yet; the first that is noted.
    store_id UUID
);
INSERT INTO store_mark DEFAULT VALUES;
