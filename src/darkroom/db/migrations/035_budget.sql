-- The provider's budget, shared by all processes; fair turns; replays of dead letters.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE provider_budgets (
    provider TEXT PRIMARY KEY,
    -- At most this many creations in any window of this length; NULL: no limit.
    window_requests INTEGER CHECK (window_requests > 0),
    window_seconds DOUBLE PRECISION NOT NULL DEFAULT 10 CHECK (window_seconds > 0),
    paused_until TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
    pause_reason TEXT,
    -- Creations in a row that got no answer. Grows the breaker's pause; the next answer ends it.
    silent_in_a_row INTEGER NOT NULL DEFAULT 0,
    updated_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now()
);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_task_attempts_window ON task_attempts (provider, created_at);

-- Whose turn it is: a set's n-th photo stands two seconds behind its (n-1)th, so that a small order that
-- comes a little later is not behind all of a big one. Retries keep their turn.
ALTER TABLE kie_tasks ADD COLUMN turn TIMESTAMPTZ NOT NULL DEFAULT '-infinity';
UPDATE kie_tasks SET turn = created_at + prompt_index * INTERVAL '2 seconds';
-- squawk-ignore ban-drop-default
ALTER TABLE kie_tasks ALTER COLUMN turn DROP DEFAULT;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_kie_tasks_turn ON kie_tasks (provider, turn, id) WHERE status = 'queued';

-- A replay gives a task its attempts anew: those made before it are not counted any more.
ALTER TABLE kie_tasks ADD COLUMN attempts_forgiven INTEGER NOT NULL DEFAULT 0;
