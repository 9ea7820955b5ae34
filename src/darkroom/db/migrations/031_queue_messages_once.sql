-- Each queue message has its effect once: the row is inserted in the transaction of that effect.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE qstash_processed_messages (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- squawk-ignore prefer-text-field
    message_id VARCHAR(255) UNIQUE NOT NULL,
    processed_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now()
);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_qstash_cleanup ON qstash_processed_messages (created_at);
