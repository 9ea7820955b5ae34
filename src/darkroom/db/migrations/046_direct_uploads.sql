-- Files that customers put straight into the object store, where request bodies are limited (4.5 MB).
-- A row is the promise that its object is removed: nothing in the store is without one.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE direct_uploads (
    id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id BIGINT NOT NULL REFERENCES users (id),
    avatar_id BIGINT NOT NULL REFERENCES avatars (id),
    object_key TEXT NOT NULL GENERATED ALWAYS AS ('uploads/' || avatar_id || '/' || id) STORED,
    file_name TEXT NOT NULL CHECK (length(file_name) <= 100),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- When its address is good no longer: until then somebody may still put something there.
    ends_at TIMESTAMPTZ NOT NULL
);
CREATE INDEX idx_direct_uploads_ends ON direct_uploads (ends_at);
CREATE INDEX idx_direct_uploads_avatar ON direct_uploads (avatar_id);
