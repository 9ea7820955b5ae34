-- The stored bytes are looked at again and again, and objects that nobody needs are found and removed.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Columns without a default: no row is rewritten.
ALTER TABLE generated_photos
-- When the photo's bytes were last read whole; NULL: never yet.
ADD COLUMN bytes_checked_at TIMESTAMPTZ,
-- What was wrong with them then; NULL: nothing.
ADD COLUMN bytes_finding TEXT,
ADD CONSTRAINT generated_photos_bytes_finding CHECK (
    bytes_finding IS NULL
    OR (bytes_finding IN ('missing', 'other_size', 'other_bytes', 'not_a_picture') AND bytes_checked_at IS NOT NULL)
) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE generated_photos VALIDATE CONSTRAINT generated_photos_bytes_finding;
-- The one that was looked at longest ago comes first.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_generated_photos_to_check ON generated_photos (bytes_checked_at NULLS FIRST, id)
WHERE erasing_at IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_generated_photos_findings ON generated_photos (id) WHERE bytes_finding IS NOT NULL;

-- Who points at an object? Asked by its key.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_generated_photos_thumbnail ON generated_photos (thumbnail_key) WHERE thumbnail_key IS NOT NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_late_photos_key ON late_photos (object_key);

-- How far the walks over the bucket came, whoever walked: one at a time for all processes together.
CREATE TABLE bucket_walks (
    name TEXT PRIMARY KEY CHECK (name IN ('check', 'sweep')),
    -- The sweeper's: where the next page begins.
    folder TEXT NOT NULL DEFAULT '',
    after_key TEXT NOT NULL DEFAULT '',
    due_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- Raised by each who takes the walk: who lost it moves it no further.
    claim BIGINT NOT NULL DEFAULT 0
);
INSERT INTO bucket_walks (name) VALUES ('check'), ('sweep');
