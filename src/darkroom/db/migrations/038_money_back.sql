-- Money back, without a person: each call a row, each kopek that the provider gave back a row, and what it settled.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The policy that a payment was sold under also says what becomes of money that buys nothing.
ALTER TABLE refund_policies
-- Unused money is reminded of, and then goes back by itself.
ADD COLUMN unused_remind_days INTEGER NOT NULL DEFAULT 3,
ADD COLUMN unused_refund_days INTEGER NOT NULL DEFAULT 14,
-- Money that came after its order was canceled or had expired: it starts the order, or it goes back.
ADD COLUMN late_money TEXT NOT NULL DEFAULT 'start',
-- Where a provider pays back all or nothing: the whole price, or the missing photos are made again for free.
ADD COLUMN without_partial TEXT NOT NULL DEFAULT 'whole',
ADD CONSTRAINT refund_policies_of_unused CHECK (
    unused_remind_days > 0 AND unused_refund_days > unused_remind_days
    AND late_money IN ('start', 'refund') AND without_partial IN ('whole', 'grant')
) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE refund_policies VALIDATE CONSTRAINT refund_policies_of_unused;

-- A payment for what another payment bought: the second money for one order, or photos made again for free.
ALTER TABLE payments
ADD COLUMN duplicate_of BIGINT,
ADD COLUMN compensates BIGINT,
ADD CONSTRAINT payments_duplicate_of FOREIGN KEY (duplicate_of) REFERENCES payments (id) NOT VALID,
ADD CONSTRAINT payments_compensates FOREIGN KEY (compensates) REFERENCES payments (id) NOT VALID,
ADD CONSTRAINT payments_compensation_is_free CHECK (compensates IS NULL OR provider = 'grant') NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE payments VALIDATE CONSTRAINT payments_duplicate_of,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT payments_compensates,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT payments_compensation_is_free;
-- One set is compensated once.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_payments_compensates ON payments (compensates);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_payments_duplicate_of ON payments (duplicate_of) WHERE duplicate_of IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_payments_unused ON payments (succeeded_at, id)
WHERE status = 'succeeded' AND NOT generation_consumed AND amount_minor > 0;

ALTER TABLE refunds
-- Nothing ever wrote it: what the provider calls a refund stands in provider_refunds.
-- squawk-ignore ban-drop-column
DROP COLUMN provider_refund_id,
-- What of it the provider has given back for certain. All of it: succeeded.
ADD COLUMN settled_minor BIGINT NOT NULL DEFAULT 0,
-- The wish of an operator or a customer that made it: read back after a commit whose answer was lost.
ADD COLUMN request_id UUID,
ADD COLUMN note TEXT,
-- Since when it is owed and on its way; a person who asks again begins anew.
-- squawk-ignore adding-field-with-default
ADD COLUMN open_since TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
-- Since when a person has been looked for; the evidence is in refund_attempts.
ADD COLUMN failed_at TIMESTAMPTZ,
-- squawk-ignore ban-drop-constraint
DROP CONSTRAINT refunds_reason_check;
UPDATE refunds SET settled_minor = amount_minor WHERE status = 'succeeded';
UPDATE refunds SET failed_at = updated_at WHERE status = 'failed';
UPDATE refunds SET open_since = created_at;
ALTER TABLE refunds
ADD CONSTRAINT refunds_reason_check CHECK (
    reason IN (
        'shortfall', 'below_threshold', 'no_partial', 'unused', 'late', 'duplicate', 'asked_back',
        'operator', 'outside', 'chargeback', 'compensation_failed'
    )
) NOT VALID,
ADD CONSTRAINT refunds_settled_within CHECK (settled_minor BETWEEN 0 AND amount_minor) NOT VALID,
-- "Succeeded" is no opinion: it is the provider's own refunds, summed up.
ADD CONSTRAINT refunds_success_is_settled
CHECK ((status = 'succeeded') = (settled_minor = amount_minor)) NOT VALID,
ADD CONSTRAINT refunds_failure_has_time CHECK ((status = 'failed') = (failed_at IS NOT NULL)) NOT VALID;
ALTER TABLE refunds
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT refunds_reason_check,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT refunds_settled_within,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT refunds_success_is_settled,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT refunds_failure_has_time;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_refunds_request ON refunds (request_id);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_refunds_job ON refunds (job_id);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_refunds_failed ON refunds (failed_at, id) WHERE status = 'failed';
-- One refund of a payment is under way at a time: two answers that cross can then always be told apart.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_refunds_one_in_flight ON refunds (payment_id) WHERE status IN ('sending', 'unknown');

-- One row before each call that may give money back: a person's evidence when the answer is a no.
CREATE TABLE refund_attempts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refund_id BIGINT NOT NULL REFERENCES refunds (id),
    number INTEGER NOT NULL CHECK (number > 0),
    -- "{refund}-{n}": the same until a definite no.
    key TEXT NOT NULL,
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    called_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- Facts. Written by attempt id, never fenced.
    answered_at TIMESTAMPTZ,
    answer TEXT CHECK (answer IN ('done', 'under_way', 'already', 'refused', 'later', 'no_answer')),
    code TEXT,
    text TEXT,
    UNIQUE (refund_id, number),
    CONSTRAINT refund_attempts_answer_has_time CHECK ((answered_at IS NULL) = (answer IS NULL))
);

-- What the provider's own books say went back: the truth that refunds are settled by.
CREATE TABLE provider_refunds (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id BIGINT NOT NULL REFERENCES payments (id),
    provider_refund_id TEXT NOT NULL CHECK (length(provider_refund_id) BETWEEN 1 AND 255),
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    -- Our key as the provider echoes it; NULL: begun outside.
    key TEXT,
    is_chargeback BOOLEAN NOT NULL DEFAULT FALSE,
    seen_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    UNIQUE (payment_id, provider_refund_id)
);

-- Which of the provider's refunds settled how much of which of ours; by hand: a note instead.
CREATE TABLE refund_settlements (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    refund_id BIGINT NOT NULL REFERENCES refunds (id),
    provider_refund_row_id BIGINT REFERENCES provider_refunds (id),
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    note TEXT,
    settled_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    UNIQUE (refund_id, provider_refund_row_id),
    CONSTRAINT refund_settlements_have_a_source CHECK ((provider_refund_row_id IS NULL) = (note IS NOT NULL))
);
CREATE INDEX idx_refund_settlements_source ON refund_settlements (provider_refund_row_id);

CREATE FUNCTION keep_money_row() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'money that moved stays written (% %)', TG_TABLE_NAME, OLD.id
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER provider_refunds_keep BEFORE UPDATE OR DELETE ON provider_refunds
FOR EACH ROW EXECUTE FUNCTION keep_money_row();
CREATE TRIGGER refund_settlements_keep BEFORE UPDATE OR DELETE ON refund_settlements
FOR EACH ROW EXECUTE FUNCTION keep_money_row();

-- A photo's share may go back in several parts (a person at the bank gives a little, the settlement the rest): what
-- went back moves with every line, and never passes the share. Shortfall is still once a photo.
ALTER TABLE kie_tasks ADD COLUMN returned_minor BIGINT NOT NULL DEFAULT 0;
UPDATE kie_tasks t SET returned_minor = l.amount_minor FROM refund_lines l WHERE l.task_id = t.id;
ALTER TABLE kie_tasks ADD CONSTRAINT kie_tasks_returned_within_share
CHECK (returned_minor BETWEEN 0 AND share_minor) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE kie_tasks VALIDATE CONSTRAINT kie_tasks_returned_within_share;
-- squawk-ignore ban-drop-constraint
ALTER TABLE refund_lines DROP CONSTRAINT refund_lines_task_id_key;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_refund_lines_one_shortfall ON refund_lines (task_id) WHERE kind = 'shortfall';
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_refund_lines_task ON refund_lines (task_id);

CREATE OR REPLACE FUNCTION reserve_refund_line() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    UPDATE payments SET refund_reserved_minor = refund_reserved_minor + NEW.amount_minor
    WHERE id = NEW.payment_id;
    UPDATE kie_tasks SET returned_minor = returned_minor + NEW.amount_minor WHERE id = NEW.task_id;
    RETURN NULL;
END $$;

-- What a customer is told, after it happened, in both languages. A copy goes to the chat where there is one.
CREATE TABLE customer_messages (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    kind TEXT NOT NULL CHECK (kind IN (
        'money_back', 'money_back_delayed', 'unused_reminder', 'made_again', 'selfies_deleted'
    )),
    -- What it is about: a refund, a payment, or the first selfie of a day. Each is told of once.
    subject_id BIGINT NOT NULL,
    payment_id BIGINT REFERENCES payments (id),
    text_ru TEXT NOT NULL,
    text_en TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    UNIQUE (kind, subject_id)
);
CREATE INDEX idx_customer_messages_user ON customer_messages (user_id, id DESC);
CREATE INDEX idx_customer_messages_payment ON customer_messages (payment_id);

ALTER TABLE telegram_message_queue
ADD COLUMN customer_message_id BIGINT,
ADD CONSTRAINT telegram_message_queue_message
FOREIGN KEY (customer_message_id) REFERENCES customer_messages (id) NOT VALID,
ADD CONSTRAINT telegram_message_queue_is_one_thing
CHECK (num_nonnulls(photo_id, customer_message_id) = 1) NOT VALID;
ALTER TABLE telegram_message_queue
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT telegram_message_queue_message,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT telegram_message_queue_is_one_thing;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_telegram_customer_message ON telegram_message_queue (customer_message_id);

-- Our ledger beside the provider's own list: what differs is a row for a person, never silently mended.
CREATE TABLE differences (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    provider TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN (
        'unknown_payment', 'price_mismatch', 'payment_not_ours_yet', 'payment_missing_there',
        'refund_not_ours_yet', 'refund_missing_there', 'refund_amount', 'more_back_than_paid'
    )),
    -- The provider's id of the payment or refund; ours where it has none.
    subject TEXT NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    payment_id BIGINT REFERENCES payments (id),
    ours_minor BIGINT,
    theirs_minor BIGINT,
    currency TEXT,
    first_seen_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    last_seen_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- Gone at a later look, or settled by a person with a note.
    closed_at TIMESTAMPTZ,
    note TEXT
);
CREATE UNIQUE INDEX idx_differences_open ON differences (provider, kind, subject) WHERE closed_at IS NULL;
CREATE INDEX idx_differences_payment ON differences (payment_id);

INSERT INTO legal_move (kind, from_status, to_status) VALUES
('payment', 'succeeded', 'refunded'),
('refund', 'sending', 'requested'),
('refund', 'requested', 'succeeded'),
('refund', 'failed', 'succeeded');
