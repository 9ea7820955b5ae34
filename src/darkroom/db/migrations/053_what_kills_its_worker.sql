-- A picture that kills its decoder kills the worker that opens it, and the next one, and the next (decision 25).
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Leases that ended without a word while its picture was fetched, in the attempt under way.
ALTER TABLE kie_tasks ADD COLUMN lapses INTEGER NOT NULL DEFAULT 0;
