-- What a review found: calls that were never made, and bad results told from bad luck.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- Written just before the call. An attempt without it never reached the provider: it costs nothing.
ALTER TABLE task_attempts ADD COLUMN called_at TIMESTAMPTZ;
UPDATE task_attempts SET called_at = created_at;

-- Downloads of this task that were no picture; other failed tries of the step don't count as such.
ALTER TABLE kie_tasks ADD COLUMN bad_results INTEGER NOT NULL DEFAULT 0;

CREATE FUNCTION keep_photo_row() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a photo leaves a tombstone, its row stays (photo %)', OLD.id
        USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER generated_photos_keep BEFORE DELETE ON generated_photos
FOR EACH ROW EXECUTE FUNCTION keep_photo_row();
