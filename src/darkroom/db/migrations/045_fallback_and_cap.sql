-- A provider that is shut for long hands its queue on; an account spends no more than it may in a day.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE provider_budgets
-- Since when nothing could be created there; NULL: the last creation worked.
ADD COLUMN shut_since TIMESTAMPTZ,
-- Credits that may be spent in one UTC day; NULL: no limit.
ADD COLUMN day_credits_max NUMERIC;
