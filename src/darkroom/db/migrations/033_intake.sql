-- What a selfie's file was found to be, and wishes for an avatar that may come twice.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The wish that made the avatar: read back after a commit whose answer was lost.
ALTER TABLE avatars ADD COLUMN request_id UUID;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_avatars_request ON avatars (request_id);

ALTER TABLE reference_photos
-- Of the file as it was sent. `sha256` is of what we made of it, and stored.
ADD COLUMN upload_sha256 TEXT,
-- 64 bits that stay close when the picture does.
ADD COLUMN dhash BIGINT,
-- {"warnings": [codes], "severe": [codes], measures ...}; empty for selfies older than the check.
ADD COLUMN verdict JSONB NOT NULL DEFAULT '{}';

-- The new one allows all that the old one did.
-- squawk-ignore ban-drop-constraint
ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_scope_check;
ALTER TABLE idempotency_keys ADD CONSTRAINT idempotency_keys_scope_check
CHECK (scope IN ('generate', 'payment', 'avatar')) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE idempotency_keys VALIDATE CONSTRAINT idempotency_keys_scope_check;
