-- What operators check after a deployment:  psql "$DATABASE_URL" --file scripts/verify.sql
-- Each line says OK; a FAIL stops psql with an error (run it with --set ON_ERROR_STOP=1).
\pset format unaligned
\pset tuples_only on

SELECT CASE WHEN EXISTS (
    SELECT FROM pg_constraint
    WHERE conname = 'fk_payment_unique' AND contype = 'u' AND conrelid = 'generation_jobs'::regclass
) THEN 'OK   constraint fk_payment_unique on generation_jobs (payment_id)'
ELSE 'FAIL constraint fk_payment_unique is missing' END;

SELECT CASE WHEN EXISTS (
    SELECT FROM pg_constraint
    WHERE conrelid = 'qstash_processed_messages'::regclass AND contype = 'u'
      AND pg_get_constraintdef(oid) = 'UNIQUE (message_id)'
) THEN 'OK   table qstash_processed_messages with a unique message_id'
ELSE 'FAIL qstash_processed_messages has no unique message_id' END;

SELECT CASE WHEN count(*) = 2
THEN 'OK   indexes idx_payments_consumed and idx_qstash_cleanup'
ELSE 'FAIL an index is missing' END
FROM pg_indexes WHERE indexname IN ('idx_payments_consumed', 'idx_qstash_cleanup');

-- Deleted photos leave a tombstone, so that these counts stay equal for ever.
SELECT CASE WHEN NOT EXISTS (
    SELECT FROM avatars a
    WHERE (SELECT count(*) FROM generated_photos p WHERE p.avatar_id = a.id)
       <> (SELECT count(*) FROM kie_tasks t WHERE t.avatar_id = a.id AND t.status = 'completed')
) THEN 'OK   photos of each avatar = its completed tasks'
ELSE 'FAIL photos of an avatar differ from its completed tasks' END;

DO $$
BEGIN
    IF EXISTS (
        SELECT FROM avatars a
        WHERE (SELECT count(*) FROM generated_photos p WHERE p.avatar_id = a.id)
           <> (SELECT count(*) FROM kie_tasks t WHERE t.avatar_id = a.id AND t.status = 'completed')
    ) OR (SELECT count(*) FROM pg_indexes
          WHERE indexname IN ('idx_payments_consumed', 'idx_qstash_cleanup')) <> 2
    OR NOT EXISTS (SELECT FROM pg_constraint WHERE conname = 'fk_payment_unique')
    THEN
        RAISE EXCEPTION 'verification failed';
    END IF;
END $$;
