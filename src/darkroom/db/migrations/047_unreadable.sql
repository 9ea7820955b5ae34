-- A stored photo that the store does not give out, while it gives out others, is a finding.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE generated_photos
-- squawk-ignore ban-drop-constraint
DROP CONSTRAINT generated_photos_bytes_finding,
ADD CONSTRAINT generated_photos_bytes_finding CHECK (
    bytes_finding IS NULL
    OR (
        bytes_finding IN ('missing', 'other_size', 'other_bytes', 'not_a_picture', 'unreadable')
        AND bytes_checked_at IS NOT NULL
    )
) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE generated_photos VALIDATE CONSTRAINT generated_photos_bytes_finding;
