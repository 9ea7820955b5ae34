-- The gallery: favourites, shares of photos by link, and a photo that is made again.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE generated_photos ADD COLUMN favorite_at TIMESTAMPTZ;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_generated_photos_favorite ON generated_photos (avatar_id, id DESC) WHERE favorite_at IS NOT NULL;

-- What a share points at: a set of its own user, and a photo of that set. The same two indexes as before, unique now,
-- so that foreign keys can: one more of (id, ...) would be one more to write at every photo.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_generation_jobs_of_user ON generation_jobs (user_id, id);
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_generated_photos_of_job ON generated_photos (job_id, id);
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX idx_generation_jobs_user;
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX idx_generated_photos_job;

-- A whole set (photo_id NULL) or one photo of it, for whoever holds the link. The link's token is signed, not stored.
CREATE TABLE photo_shares (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL,
    job_id BIGINT NOT NULL,
    photo_id BIGINT,
    request_id UUID NOT NULL,
    created_at TIMESTAMPTZ NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL,
    ended_at TIMESTAMPTZ,
    CONSTRAINT photo_shares_once UNIQUE (user_id, request_id),
    CONSTRAINT photo_shares_time_is_limited CHECK (
        expires_at > created_at AND expires_at <= created_at + INTERVAL '720 hours'
    ),
    CONSTRAINT photo_shares_of_own_set FOREIGN KEY (user_id, job_id) REFERENCES generation_jobs (user_id, id),
    CONSTRAINT photo_shares_of_its_photo FOREIGN KEY (job_id, photo_id) REFERENCES generated_photos (job_id, id)
);
CREATE INDEX idx_photo_shares_user ON photo_shares (user_id, id DESC);
-- When a share was over, one way or the other.
CREATE INDEX idx_photo_shares_over ON photo_shares (least(ended_at, expires_at));

-- How many photos of a paid set its customer may have made again for free.
ALTER TABLE refund_policies
ADD COLUMN redo_photos INTEGER NOT NULL DEFAULT 1,
ADD CONSTRAINT refund_policies_of_redos CHECK (redo_photos BETWEEN 0 AND 100) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE refund_policies VALIDATE CONSTRAINT refund_policies_of_redos;

-- The photo that a free set of one photo makes again: each at most once.
ALTER TABLE payments
ADD COLUMN redoes_photo_id BIGINT,
ADD CONSTRAINT payments_redoes_photo FOREIGN KEY (redoes_photo_id) REFERENCES generated_photos (id) NOT VALID,
-- It starts in the transaction that writes it, and makes good no other payment.
ADD CONSTRAINT payments_redo_is_one_free_photo CHECK (
    redoes_photo_id IS NULL
    OR (provider = 'grant' AND photo_count = 1 AND generation_consumed AND compensates IS NULL)
) NOT VALID;
ALTER TABLE payments
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT payments_redoes_photo,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT payments_redo_is_one_free_photo;
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_payments_redoes ON payments (redoes_photo_id) WHERE redoes_photo_id IS NOT NULL;
-- A page of a customer's payments.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_payments_page ON payments (user_id, id DESC);
