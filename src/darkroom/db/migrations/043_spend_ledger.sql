-- What each attempt cost and to what end; the provider's own balance, read now and then, to hold against it.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE task_attempts
-- Which of the provider's models was asked. NULL: before there was more than one.
ADD COLUMN model TEXT,
-- What it is expected to cost, written with the intent; NULL: this provider takes no credits.
ADD COLUMN expected_credits NUMERIC,
-- When its cost was asked for afterwards, because nobody had read it.
ADD COLUMN cost_asked_at TIMESTAMPTZ;

-- `account:model` names a further model of one account; the account's own name is its main model. The window, the
-- balance and the provider's task ids belong to the account.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_task_attempts_account_task ON task_attempts (split_part(provider, ':', 1), provider_task_id)
WHERE provider_task_id IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_task_attempts_account_created ON task_attempts (split_part(provider, ':', 1), created_at);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_task_attempts_account_ended ON task_attempts (split_part(provider, ':', 1), ended_at)
WHERE ended_at IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_task_attempts_created ON task_attempts (created_at);
-- Counted by account now.
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX idx_task_attempts_window;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_task_attempts_open ON task_attempts (id) WHERE ended_at IS NULL AND refusal_code IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_task_attempts_cost_unknown ON task_attempts (cost_asked_at NULLS FIRST, id)
WHERE credits IS NULL AND expected_credits IS NOT NULL AND provider_task_id IS NOT NULL AND ended_at IS NOT NULL;

CREATE TABLE credit_readings (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account TEXT NOT NULL,
    -- Just before the balance was asked for.
    read_at TIMESTAMPTZ NOT NULL,
    credits_left NUMERIC NOT NULL,
    -- What calls that were under way may have taken already, or not yet.
    in_flight_credits NUMERIC NOT NULL,
    -- The reading it was held against, which may be forgotten by now; NULL: the account's first.
    since_id BIGINT,
    dropped_credits NUMERIC NOT NULL DEFAULT 0,
    explained_credits NUMERIC NOT NULL DEFAULT 0,
    -- Of attempts that ended since and whose cost nobody knows: at most this much.
    unknown_credits NUMERIC NOT NULL DEFAULT 0,
    topped_up_credits NUMERIC NOT NULL DEFAULT 0 CHECK (topped_up_credits >= 0),
    unexplained_credits NUMERIC NOT NULL DEFAULT 0 CHECK (unexplained_credits >= 0),
    -- Later readings are held against this one.
    is_anchor BOOLEAN NOT NULL
);
CREATE INDEX idx_credit_readings_account ON credit_readings (account, id);
CREATE INDEX idx_credit_readings_anchor ON credit_readings (account, id) WHERE is_anchor;
