-- An avatar is deleted with all its photos: here stands which ones are still to be gone through.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE avatars
-- All its pictures are marked to go, and its name is gone.
ADD COLUMN emptied_at TIMESTAMPTZ,
ADD CONSTRAINT avatars_emptied_in_order CHECK (emptied_at IS NULL OR deleted_at IS NOT NULL) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE avatars VALIDATE CONSTRAINT avatars_emptied_in_order;
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_avatars_to_empty ON avatars (deleted_at, id) WHERE deleted_at IS NOT NULL AND emptied_at IS NULL;

-- Free sets whose money had all gone back before anybody looked: from here on `close_compensation_of` ends them.
UPDATE payments free SET status = 'refunded', updated_at = darkroom_now()
WHERE free.compensates IS NOT NULL AND free.status = 'succeeded' AND NOT free.generation_consumed AND NOT EXISTS (
    SELECT FROM generation_jobs o JOIN kie_tasks t ON t.job_id = o.id
    WHERE o.payment_id = free.compensates AND t.status = 'failed' AND t.share_minor > t.returned_minor);
