-- One payment, one generation: said again by the database itself.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- squawk-ignore disallowed-unique-constraint, constraint-missing-not-valid
ALTER TABLE generation_jobs ADD CONSTRAINT fk_payment_unique UNIQUE (payment_id);

-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_payments_consumed ON payments (user_id, generation_consumed, created_at DESC)
WHERE generation_consumed = FALSE;
