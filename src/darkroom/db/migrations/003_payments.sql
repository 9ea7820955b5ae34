-- Money in, and every message from outside.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE payments (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    provider TEXT NOT NULL,
    provider_payment_id TEXT,
    status TEXT NOT NULL DEFAULT 'pending' CHECK (
        status IN (
            'pending', 'succeeded', 'canceled', 'expired',
            'refunding', 'refunded', 'partially_refunded'
        )
    ),
    tier_id TEXT NOT NULL REFERENCES tiers (id),
    photo_count INTEGER NOT NULL CHECK (photo_count BETWEEN 1 AND 100),
    amount_minor BIGINT NOT NULL CHECK (amount_minor >= 0),
    currency TEXT NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    -- Stars (XTR) have no minor unit; every other currency sold here has two digits.
    amount NUMERIC GENERATED ALWAYS AS (
        CASE WHEN currency = 'XTR' THEN amount_minor::NUMERIC
        ELSE round(amount_minor::NUMERIC / 100, 2) END
    ) STORED,
    policy_id BIGINT NOT NULL REFERENCES refund_policies (id),
    order_avatar_id BIGINT REFERENCES avatars (id),
    order_style_id TEXT REFERENCES styles (id),
    generation_consumed BOOLEAN NOT NULL DEFAULT FALSE,
    consumed_at TIMESTAMPTZ,
    consumed_avatar_id BIGINT REFERENCES avatars (id),
    refund_reserved_minor BIGINT NOT NULL DEFAULT 0,
    request_id UUID NOT NULL UNIQUE,
    checkout_url TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    succeeded_at TIMESTAMPTZ,
    -- When the provider is asked next about a payment nobody told us about.
    due_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    lease_until TIMESTAMPTZ,
    claim BIGINT NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT payments_provider_id_unique UNIQUE (provider, provider_payment_id),
    CONSTRAINT payments_reserved_within_price
    CHECK (refund_reserved_minor >= 0 AND refund_reserved_minor <= amount_minor),
    CONSTRAINT payments_consumed_has_time CHECK (generation_consumed = (consumed_at IS NOT NULL)),
    CONSTRAINT payments_grant_is_free CHECK ((provider = 'grant') = (amount_minor = 0)),
    CONSTRAINT payments_order_is_whole
    CHECK ((order_avatar_id IS NULL) = (order_style_id IS NULL)),
    CONSTRAINT payments_money_has_time
    CHECK (succeeded_at IS NOT NULL OR status IN ('pending', 'canceled', 'expired'))
);
-- The newest first: a customer's page, and which payment a generation takes.
CREATE INDEX idx_payments_user ON payments (user_id, created_at DESC);
CREATE INDEX idx_payments_due ON payments (due_at) WHERE status = 'pending';

CREATE FUNCTION keep_what_was_bought() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what was bought cannot change (payment %)', OLD.id
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER payments_keep_what_was_bought
BEFORE UPDATE OF user_id, provider, tier_id, photo_count, amount_minor, currency, policy_id
ON payments FOR EACH ROW
WHEN (
    (OLD.user_id, OLD.provider, OLD.tier_id, OLD.photo_count, OLD.amount_minor, OLD.currency, OLD.policy_id)
    IS DISTINCT FROM
    (NEW.user_id, NEW.provider, NEW.tier_id, NEW.photo_count, NEW.amount_minor, NEW.currency, NEW.policy_id)
) EXECUTE FUNCTION keep_what_was_bought();

-- A key a client sent with a request, and what that request made.
CREATE TABLE idempotency_keys (
    user_id BIGINT NOT NULL REFERENCES users (id),
    scope TEXT NOT NULL CHECK (scope IN ('generate', 'payment')),
    key TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_sha256 TEXT NOT NULL,
    row_id BIGINT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    PRIMARY KEY (user_id, scope, key)
);

-- A webhook never acts: it becomes a row here, once, and a flow step acts later.
CREATE TABLE inbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source TEXT NOT NULL,
    external_id TEXT NOT NULL CHECK (length(external_id) BETWEEN 1 AND 255),
    kind TEXT NOT NULL,
    payload JSONB NOT NULL,
    received_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    due_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    lease_until TIMESTAMPTZ,
    claim BIGINT NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    processed_at TIMESTAMPTZ,
    outcome TEXT,
    last_error TEXT,
    CONSTRAINT inbox_once UNIQUE (source, external_id),
    CONSTRAINT inbox_processed_has_outcome CHECK ((processed_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX idx_inbox_due ON inbox (due_at, id) WHERE processed_at IS NULL;
