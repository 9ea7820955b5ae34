-- Once a day and provider our ledger is held against the provider's own list; whoever inserts the row does it.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE reconciliations (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider TEXT NOT NULL,
    -- UTC.
    day DATE NOT NULL,
    started_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- NULL: under way, or its run died or was not answered: taken again after an hour.
    finished_at TIMESTAMPTZ,
    lines BIGINT,
    found BIGINT,
    CONSTRAINT reconciliations_once_a_day UNIQUE (provider, day),
    CONSTRAINT reconciliations_end_is_whole CHECK (num_nonnulls(finished_at, lines, found) IN (0, 3))
);

-- When the money moved: only a look at that time can say that the difference is gone. NULL: a notice wrote it, and
-- no list has shown it yet.
ALTER TABLE differences ADD COLUMN moved_at TIMESTAMPTZ;

-- What became ours in a span of time.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_payments_succeeded ON payments (provider, succeeded_at)
WHERE succeeded_at IS NOT NULL AND amount_minor > 0;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_provider_refunds_seen ON provider_refunds (seen_at);
