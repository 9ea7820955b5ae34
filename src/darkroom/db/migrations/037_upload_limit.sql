-- How often a customer uploads, refused files included: decoding is what costs us.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE upload_requests (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now()
);
CREATE INDEX idx_upload_requests_user ON upload_requests (user_id, created_at);
CREATE INDEX idx_upload_requests_created ON upload_requests (created_at);
