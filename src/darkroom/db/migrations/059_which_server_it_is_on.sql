-- A database that was copied with its rows (a dump put into staging) took the original's store for its own, and
-- swept it. A copy is on another server, or beside the original: the row says where the database was.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The server's own number (pg_control_system) and the database's there; NULL: not noted yet, or not readable. A replica has both.
ALTER TABLE store_mark ADD COLUMN server TEXT;
