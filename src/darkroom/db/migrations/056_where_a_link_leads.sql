-- Whoever asked for a letter was on their way to a page of ours: its link leads there.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- A path of ours with its query; NULL: to the sets, as before.
ALTER TABLE sign_in_links ADD COLUMN next_path TEXT;
