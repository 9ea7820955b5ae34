-- What is owed back, line by line.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE refunds (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id BIGINT NOT NULL REFERENCES payments (id),
    job_id BIGINT REFERENCES generation_jobs (id),
    status TEXT NOT NULL DEFAULT 'requested' CHECK (
        status IN ('requested', 'sending', 'unknown', 'succeeded', 'failed')
    ),
    reason TEXT NOT NULL CHECK (
        reason IN ('shortfall', 'below_threshold', 'unused', 'operator', 'chargeback', 'duplicate')
    ),
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    currency TEXT NOT NULL,
    -- n of the idempotency key "{id}-{n}": it grows only after a definite no.
    key_number INTEGER NOT NULL DEFAULT 1 CHECK (key_number > 0),
    provider_refund_id TEXT,
    last_error TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    succeeded_at TIMESTAMPTZ,
    due_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    lease_until TIMESTAMPTZ,
    claim BIGINT NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT refunds_id_payment UNIQUE (id, payment_id),
    CONSTRAINT refunds_success_has_time CHECK ((status = 'succeeded') = (succeeded_at IS NOT NULL))
);
CREATE INDEX idx_refunds_payment ON refunds (payment_id);
CREATE INDEX idx_refunds_due ON refunds (due_at, id) WHERE status IN ('requested', 'sending', 'unknown');

CREATE TABLE refund_lines (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refund_id BIGINT NOT NULL,
    payment_id BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('shortfall', 'goodwill', 'unused')),
    -- One line a task, ever: its share goes back once.
    task_id BIGINT UNIQUE REFERENCES kie_tasks (id),
    task_status TEXT,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    CONSTRAINT refund_lines_of_refund
    FOREIGN KEY (refund_id, payment_id) REFERENCES refunds (id, payment_id),
    CONSTRAINT refund_lines_shortfall_is_failed CHECK (
        (kind = 'shortfall' AND task_id IS NOT NULL AND task_status = 'failed')
        OR (kind <> 'shortfall' AND task_status IS NULL)
    ),
    -- A shortfall line exists only for a task that is failed, for ever: delivered or paid back, never both.
    CONSTRAINT refund_lines_of_failed_task
    FOREIGN KEY (task_id, task_status) REFERENCES kie_tasks (id, status)
    DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX idx_refund_lines_refund ON refund_lines (refund_id);
CREATE INDEX idx_refund_lines_payment ON refund_lines (payment_id);

-- The reserve moves with every line; payments_reserved_within_price then refuses a kopek too much.
CREATE FUNCTION reserve_refund_line() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE payments SET refund_reserved_minor = refund_reserved_minor + NEW.amount_minor
    WHERE id = NEW.payment_id;
    RETURN NULL;
END $$;
CREATE TRIGGER refund_lines_reserve AFTER INSERT ON refund_lines
FOR EACH ROW EXECUTE FUNCTION reserve_refund_line();

CREATE FUNCTION keep_refund_line() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a refund line is written once (line %)', OLD.id
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER refund_lines_keep BEFORE UPDATE OR DELETE ON refund_lines
FOR EACH ROW EXECUTE FUNCTION keep_refund_line();
