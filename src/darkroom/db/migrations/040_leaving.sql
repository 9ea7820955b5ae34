-- Leaving: pictures go for good, by age, by hand, or with their customer; the books and the counts stay.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE users
-- "Delete my data": from here on this row is nobody who could sign in.
ADD COLUMN forget_at TIMESTAMPTZ,
-- Where money that is still on its way back goes; gone when none is.
ADD COLUMN forgotten_telegram_user_id BIGINT,
-- Names, links and tokens are gone, and every picture is marked to go.
ADD COLUMN wiped_at TIMESTAMPTZ,
-- Nothing of the person is left, neither here nor in the bucket.
ADD COLUMN forgotten_at TIMESTAMPTZ,
ADD CONSTRAINT users_who_left_cannot_sign_in CHECK (forget_at IS NULL OR telegram_user_id IS NULL) NOT VALID,
ADD CONSTRAINT users_forgotten_in_order CHECK (
    (wiped_at IS NULL OR forget_at IS NOT NULL)
    AND (forgotten_at IS NULL OR (wiped_at IS NOT NULL AND forgotten_telegram_user_id IS NULL))
) NOT VALID;
ALTER TABLE users
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT users_who_left_cannot_sign_in,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT users_forgotten_in_order;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_users_leaving ON users (forget_at, id) WHERE forget_at IS NOT NULL AND forgotten_at IS NULL;

-- Erasing has three committed steps: the tombstone (`deleted_at`), "its bytes are being deleted" (`erasing_at`),
-- "they are gone" (`erased_at`). From the second on a row never lives again.
ALTER TABLE reference_photos
ADD COLUMN erasing_at TIMESTAMPTZ,
ADD COLUMN erased_at TIMESTAMPTZ,
ADD CONSTRAINT reference_photos_erased_in_order CHECK (
    (erasing_at IS NULL OR deleted_at IS NOT NULL) AND (erased_at IS NULL OR erasing_at IS NOT NULL)
) NOT VALID,
-- The same selfie sent twice is one selfie, unless the first is being erased: then it is another row with
-- another key. The index below holds the first half.
-- squawk-ignore ban-drop-constraint
DROP CONSTRAINT reference_photos_avatar_id_sha256_key;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE reference_photos VALIDATE CONSTRAINT reference_photos_erased_in_order;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_reference_photos_once ON reference_photos (avatar_id, sha256) WHERE erasing_at IS NULL;
-- No two rows share an object: what is erased for one is never another's.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_reference_photos_key ON reference_photos (object_key);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_reference_photos_age ON reference_photos (created_at) WHERE deleted_at IS NULL;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_reference_photos_to_erase ON reference_photos (id)
WHERE deleted_at IS NOT NULL AND erased_at IS NULL;

ALTER TABLE generated_photos
ADD COLUMN erasing_at TIMESTAMPTZ,
ADD COLUMN erased_at TIMESTAMPTZ,
ADD CONSTRAINT generated_photos_erased_in_order CHECK (
    (erasing_at IS NULL OR deleted_at IS NOT NULL) AND (erased_at IS NULL OR erasing_at IS NOT NULL)
) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE generated_photos VALIDATE CONSTRAINT generated_photos_erased_in_order;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_generated_photos_to_erase ON generated_photos (id)
WHERE erasing_at IS NOT NULL AND erased_at IS NULL;

ALTER TABLE late_photos
ADD COLUMN erasing_at TIMESTAMPTZ,
ADD COLUMN erased_at TIMESTAMPTZ,
ADD CONSTRAINT late_photos_erased_in_order CHECK (erased_at IS NULL OR erasing_at IS NOT NULL) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE late_photos VALIDATE CONSTRAINT late_photos_erased_in_order;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_late_photos_task ON late_photos (task_id);
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_late_photos_to_erase ON late_photos (id) WHERE erasing_at IS NOT NULL AND erased_at IS NULL;

-- Partial, so that no foreign key can point at it: giving the id up is then an update of no key, and does not wait for
-- those who write rows of this user (their locks on users would be taken after those on payments: a deadlock).
-- squawk-ignore ban-drop-constraint
ALTER TABLE users DROP CONSTRAINT users_telegram_user_id_key;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_users_telegram ON users (telegram_user_id) WHERE telegram_user_id IS NOT NULL;
