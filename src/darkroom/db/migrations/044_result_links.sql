-- A provider's result dies: those that die soonest are fetched first, and the alarm rings before one is lost.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE kie_tasks
-- NULL: it does not die, or nobody said so.
ADD COLUMN result_dies_at TIMESTAMPTZ,
-- A person was told that it is about to.
ADD COLUMN link_alarm_at TIMESTAMPTZ;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_kie_tasks_dying ON kie_tasks (result_dies_at, due_at, id) WHERE status = 'storing';
