-- What is sold. catalog.toml seeds these tables; the tables are the truth.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE tiers (
    id TEXT PRIMARY KEY CHECK (id ~ '^[a-z0-9_-]{1,64}$'),
    title_ru TEXT NOT NULL,
    title_en TEXT NOT NULL,
    photo_count INTEGER NOT NULL CHECK (photo_count BETWEEN 1 AND 100),
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    is_popular BOOLEAN NOT NULL DEFAULT FALSE,
    position INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE tier_prices (
    tier_id TEXT NOT NULL REFERENCES tiers (id),
    currency TEXT NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount_minor BIGINT NOT NULL CHECK (amount_minor > 0),
    PRIMARY KEY (tier_id, currency)
);

CREATE TABLE styles (
    id TEXT PRIMARY KEY CHECK (id ~ '^[a-z0-9_-]{1,64}$'),
    title_ru TEXT NOT NULL,
    title_en TEXT NOT NULL,
    description_ru TEXT NOT NULL DEFAULT '',
    description_en TEXT NOT NULL DEFAULT '',
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    position INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE prompts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    style_id TEXT NOT NULL REFERENCES styles (id),
    key TEXT NOT NULL CHECK (key ~ '^[a-z0-9_-]{1,64}$'),
    text TEXT NOT NULL CHECK (length(text) BETWEEN 1 AND 5000),
    is_active BOOLEAN NOT NULL DEFAULT TRUE,
    position INTEGER NOT NULL,
    UNIQUE (style_id, key)
);

-- The promise the buyer was shown. A payment keeps the row it was sold under for ever.
CREATE TABLE refund_policies (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Fewer delivered photos than this share of the set: the whole price goes back.
    whole_price_below_percent INTEGER NOT NULL CHECK (whole_price_below_percent BETWEEN 0 AND 100),
    -- A job older than this settles with what it has.
    job_deadline_seconds INTEGER NOT NULL CHECK (job_deadline_seconds > 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now()
);
-- 70 %: the older system's threshold (domain facts, refund policy). One hour: ten times the slowest
-- set it ever made (10 to 12 minutes), so that a provider's bad half hour costs nobody a photo.
INSERT INTO refund_policies (whole_price_below_percent, job_deadline_seconds) VALUES (70, 3600);
