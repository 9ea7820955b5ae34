-- What a gallery shows first: a small picture beside each photo, write-once under a key with its own hash.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Columns without a default: no row is rewritten. A photo without a thumbnail (older than this, or one
-- whose small picture could not be made) is shown in full instead.
ALTER TABLE generated_photos
ADD COLUMN thumbnail_key TEXT,
ADD COLUMN thumbnail_sha256 TEXT,
ADD COLUMN thumbnail_bytes BIGINT,
ADD COLUMN thumbnail_type TEXT,
-- All of it or nothing. Not validated: the rows that are there have nothing, which is allowed.
ADD CONSTRAINT generated_photos_thumbnail_is_whole CHECK (
    num_nonnulls(thumbnail_key, thumbnail_sha256, thumbnail_bytes, thumbnail_type) IN (0, 4)
    AND thumbnail_key LIKE 'thumbnails/%'
    AND thumbnail_sha256 ~ '^[0-9a-f]{64}$'
    AND thumbnail_bytes > 0
) NOT VALID;
