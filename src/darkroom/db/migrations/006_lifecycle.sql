-- The database refuses every move that core/lifecycle.py does not list, even one typed into psql.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE legal_move (
    kind TEXT NOT NULL,
    from_status TEXT NOT NULL,
    to_status TEXT NOT NULL,
    PRIMARY KEY (kind, from_status, to_status)
);

CREATE TABLE move_log (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind TEXT NOT NULL,
    row_id BIGINT NOT NULL,
    from_status TEXT NOT NULL,
    to_status TEXT NOT NULL,
    moved_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    CONSTRAINT move_log_is_legal
    FOREIGN KEY (kind, from_status, to_status)
    REFERENCES legal_move (kind, from_status, to_status)
);
CREATE INDEX idx_move_log_row ON move_log (kind, row_id, id);

CREATE FUNCTION log_move() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO move_log (kind, row_id, from_status, to_status)
        VALUES (TG_ARGV[0], NEW.id, 'new', NEW.status);
    ELSIF NEW.status IS DISTINCT FROM OLD.status THEN
        INSERT INTO move_log (kind, row_id, from_status, to_status)
        VALUES (TG_ARGV[0], NEW.id, OLD.status, NEW.status);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER payments_log_move AFTER INSERT OR UPDATE OF status ON payments
FOR EACH ROW EXECUTE FUNCTION log_move('payment');
CREATE TRIGGER generation_jobs_log_move AFTER INSERT OR UPDATE OF status ON generation_jobs
FOR EACH ROW EXECUTE FUNCTION log_move('job');
CREATE TRIGGER kie_tasks_log_move AFTER INSERT OR UPDATE OF status ON kie_tasks
FOR EACH ROW EXECUTE FUNCTION log_move('task');
CREATE TRIGGER refunds_log_move AFTER INSERT OR UPDATE OF status ON refunds
FOR EACH ROW EXECUTE FUNCTION log_move('refund');
CREATE TRIGGER telegram_message_queue_log_move AFTER INSERT OR UPDATE OF status ON telegram_message_queue
FOR EACH ROW EXECUTE FUNCTION log_move('delivery');

INSERT INTO legal_move (kind, from_status, to_status) VALUES
    ('payment', 'new', 'pending'),
    ('payment', 'new', 'succeeded'),
    ('payment', 'pending', 'succeeded'),
    ('payment', 'pending', 'canceled'),
    ('payment', 'pending', 'expired'),
    ('payment', 'canceled', 'succeeded'),
    ('payment', 'expired', 'succeeded'),
    ('payment', 'succeeded', 'refunding'),
    ('payment', 'refunding', 'refunded'),
    ('payment', 'refunding', 'succeeded'),
    ('payment', 'succeeded', 'partially_refunded'),
    ('payment', 'partially_refunded', 'succeeded'),
    ('payment', 'partially_refunded', 'refunded'),
    ('job', 'new', 'pending'),
    ('job', 'pending', 'processing'),
    ('job', 'processing', 'completed'),
    ('job', 'processing', 'partial'),
    ('job', 'processing', 'failed'),
    ('job', 'pending', 'failed'),
    ('job', 'pending', 'cancelled'),
    ('job', 'partial', 'processing'),
    ('job', 'failed', 'processing'),
    ('task', 'new', 'queued'),
    ('task', 'queued', 'submitting'),
    ('task', 'submitting', 'pending'),
    ('task', 'submitting', 'queued'),
    ('task', 'submitting', 'unknown'),
    ('task', 'unknown', 'pending'),
    ('task', 'unknown', 'queued'),
    ('task', 'pending', 'storing'),
    ('task', 'pending', 'queued'),
    ('task', 'storing', 'completed'),
    ('task', 'storing', 'queued'),
    ('task', 'queued', 'failed'),
    ('task', 'submitting', 'failed'),
    ('task', 'unknown', 'failed'),
    ('task', 'pending', 'failed'),
    ('task', 'storing', 'failed'),
    ('task', 'failed', 'queued'),
    ('refund', 'new', 'requested'),
    ('refund', 'requested', 'sending'),
    ('refund', 'sending', 'succeeded'),
    ('refund', 'sending', 'unknown'),
    ('refund', 'sending', 'failed'),
    ('refund', 'unknown', 'succeeded'),
    ('refund', 'unknown', 'requested'),
    ('refund', 'unknown', 'failed'),
    ('refund', 'failed', 'requested'),
    ('delivery', 'new', 'pending'),
    ('delivery', 'pending', 'sending'),
    ('delivery', 'sending', 'sent'),
    ('delivery', 'sending', 'pending'),
    ('delivery', 'sending', 'blocked'),
    ('delivery', 'sending', 'failed'),
    ('delivery', 'blocked', 'pending');
