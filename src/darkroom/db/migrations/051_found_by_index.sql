-- What the plans of a shop with a long past showed: rows that were looked for by reading all of a table.
SET LOCAL lock_timeout = '5s';
-- Each reads its table once; on ten million photos the longest takes a minute.
SET LOCAL statement_timeout = '280s';

-- The selfies of an avatar, erased ones too: its unique index holds those that live.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_reference_photos_avatar ON reference_photos (avatar_id);
-- Request keys are forgotten by their age.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys (created_at);
-- Paid orders that wait for their selfies: a few.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_payments_idle ON payments (id)
WHERE status = 'succeeded' AND NOT generation_consumed AND order_avatar_id IS NOT NULL;
-- The readings of the last minutes, or days.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_credit_readings_time ON credit_readings (account, read_at);
-- All letters of a task, those that were replayed too.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_dead_letter_task ON generation_dead_letter_queue (task_id);
-- Of a customer who leaves.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_telegram_user ON telegram_message_queue (user_id);
-- As the photos' own: those that wait for an answer are not passed over to find those to be sent.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_refunds_status_due ON refunds (status, due_at, id)
WHERE status IN ('requested', 'sending', 'unknown');
-- squawk-ignore require-concurrent-index-deletion
DROP INDEX idx_refunds_due;
-- What is not back yet, oldest first.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_refunds_open ON refunds (id) WHERE status <> 'succeeded';
-- The notices of an order, for its evidence. One or two an order; the callbacks of photos are found by their own id.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_inbox_payment ON inbox ((payload ->> 'payment_id')) WHERE kind IN ('payment', 'money_back');
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_inbox_provider_payment ON inbox ((payload ->> 'provider_payment_id'))
WHERE kind IN ('payment', 'money_back');
