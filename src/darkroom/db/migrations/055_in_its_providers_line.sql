-- A photo that its provider has not begun yet is not lost, and its time begins when it leaves the provider's line.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- When the provider last said that the task stands in its line; before status_since: not in this stay.
ALTER TABLE kie_tasks ADD COLUMN in_line_at TIMESTAMPTZ;
