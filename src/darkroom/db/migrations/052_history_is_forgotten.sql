-- What was logged of an order is kept as long as somebody may dispute it, and forgotten then (decision 17).
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '280s';

-- How far the past is forgotten: moves before that time may be missing, later ones never.
CREATE TABLE history_marks (
    name TEXT PRIMARY KEY CHECK (name IN ('moves')),
    forgotten_before TIMESTAMPTZ NOT NULL DEFAULT '-infinity'
);
INSERT INTO history_marks (name) VALUES ('moves');

-- Their oldest rows go day by day. By the default a fifth of the table would be dead before it is swept.
ALTER TABLE move_log SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE inbox SET (autovacuum_vacuum_scale_factor = 0.02);
ALTER TABLE telegram_message_queue SET (autovacuum_vacuum_scale_factor = 0.02);

-- Copies that were sent, or never will be: those to customers who blocked the bot are not passed over each time.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX idx_telegram_over ON telegram_message_queue (id) WHERE status IN ('sent', 'failed');
