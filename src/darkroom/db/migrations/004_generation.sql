-- Jobs, tasks (one a photo), attempts (one a paid call), photos, and what went wrong.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

CREATE TABLE generation_jobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    avatar_id BIGINT NOT NULL REFERENCES avatars (id),
    style_id TEXT NOT NULL REFERENCES styles (id),
    payment_id BIGINT NOT NULL REFERENCES payments (id),
    status TEXT NOT NULL DEFAULT 'pending' CHECK (
        status IN ('pending', 'processing', 'completed', 'partial', 'failed', 'cancelled')
    ),
    total_photos INTEGER NOT NULL CHECK (total_photos > 0),
    completed_photos INTEGER NOT NULL DEFAULT 0,
    -- The selfies this set is made from, fixed when it starts: every attempt sees the same ones.
    reference_ids BIGINT [] NOT NULL CHECK (cardinality(reference_ids) > 0),
    request_id UUID NOT NULL UNIQUE,
    deadline_at TIMESTAMPTZ NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    finished_at TIMESTAMPTZ,
    due_at TIMESTAMPTZ NOT NULL,
    lease_until TIMESTAMPTZ,
    claim BIGINT NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    CONSTRAINT generation_jobs_counts CHECK (completed_photos BETWEEN 0 AND total_photos),
    CONSTRAINT generation_jobs_finished_has_time
    CHECK ((finished_at IS NULL) = (status IN ('pending', 'processing')))
);
CREATE INDEX idx_generation_jobs_avatar ON generation_jobs (avatar_id, id);
CREATE INDEX idx_generation_jobs_user ON generation_jobs (user_id, id);
CREATE INDEX idx_generation_jobs_due ON generation_jobs (due_at, id)
WHERE status IN ('pending', 'processing');

CREATE TABLE kie_tasks (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id BIGINT NOT NULL REFERENCES generation_jobs (id),
    avatar_id BIGINT NOT NULL REFERENCES avatars (id),
    style_id TEXT NOT NULL,
    prompt_id BIGINT REFERENCES prompts (id),
    prompt TEXT NOT NULL,
    prompt_index INTEGER NOT NULL CHECK (prompt_index >= 0),
    seed BIGINT NOT NULL CHECK (seed >= 0),
    provider TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'queued' CHECK (
        status IN ('queued', 'submitting', 'unknown', 'pending', 'storing', 'completed', 'failed')
    ),
    -- The attempt that is under way (or was, last), and what its provider said.
    attempt_id BIGINT,
    kie_task_id TEXT,
    result_url TEXT,
    -- Failed tries of the current step; a try that costs the provider's money is a row in task_attempts.
    attempts INTEGER NOT NULL DEFAULT 0,
    share_minor BIGINT NOT NULL CHECK (share_minor >= 0),
    last_error TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- Since when the task has stood in its status: the longest stays are measured from here.
    status_since TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    due_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- A doorbell pulls due_at forward, but never before this: a backoff is kept.
    not_before TIMESTAMPTZ NOT NULL DEFAULT '-infinity',
    lease_until TIMESTAMPTZ,
    claim BIGINT NOT NULL DEFAULT 0,
    CONSTRAINT kie_tasks_prompt_once UNIQUE (job_id, prompt_index),
    -- What photos and shortfall lines point at: one of them can hold for a task, never both.
    CONSTRAINT kie_tasks_id_status UNIQUE (id, status)
) WITH (fillfactor = 80);
CREATE INDEX idx_kie_tasks_due ON kie_tasks (status, due_at, id)
WHERE status IN ('queued', 'submitting', 'unknown', 'pending', 'storing');
CREATE INDEX idx_kie_tasks_avatar_prompt ON kie_tasks (avatar_id, prompt_id);

-- The spend ledger: one row before each call that may cost the provider's money.
CREATE TABLE task_attempts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id BIGINT NOT NULL REFERENCES kie_tasks (id),
    number INTEGER NOT NULL CHECK (number > 0),
    provider TEXT NOT NULL,
    -- Unguessable; stands in the callback address, and so names the attempt whose answer was lost.
    token UUID NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- Facts. Written by attempt id, never fenced: what was answered is true whoever writes it.
    answered_at TIMESTAMPTZ,
    provider_task_id TEXT,
    adopted BOOLEAN NOT NULL DEFAULT FALSE,
    refusal_code TEXT,
    ended_at TIMESTAMPTZ,
    end_state TEXT CHECK (end_state IN ('succeeded', 'failed', 'lost')),
    error_code TEXT,
    error_text TEXT,
    result_url TEXT,
    credits NUMERIC,
    UNIQUE (task_id, number),
    CONSTRAINT task_attempts_provider_task_once UNIQUE (provider, provider_task_id),
    CONSTRAINT task_attempts_one_answer CHECK (provider_task_id IS NULL OR refusal_code IS NULL),
    CONSTRAINT task_attempts_end_has_time CHECK ((ended_at IS NULL) = (end_state IS NULL))
);
ALTER TABLE kie_tasks ADD CONSTRAINT kie_tasks_attempt
FOREIGN KEY (attempt_id) REFERENCES task_attempts (id) DEFERRABLE INITIALLY DEFERRED;

CREATE TABLE generated_photos (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id BIGINT NOT NULL REFERENCES generation_jobs (id),
    task_id BIGINT NOT NULL UNIQUE,
    task_status TEXT NOT NULL DEFAULT 'completed' CHECK (task_status = 'completed'),
    attempt_id BIGINT NOT NULL REFERENCES task_attempts (id),
    avatar_id BIGINT NOT NULL REFERENCES avatars (id),
    style_id TEXT NOT NULL,
    prompt TEXT NOT NULL,
    -- Our own address. A provider's address is never stored as the result: it dies.
    image_url TEXT GENERATED ALWAYS AS ('/api/photos/' || id::TEXT || '/image') STORED,
    object_key TEXT NOT NULL UNIQUE,
    sha256 TEXT NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0),
    content_type TEXT NOT NULL,
    width INTEGER NOT NULL CHECK (width > 0),
    height INTEGER NOT NULL CHECK (height > 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    deleted_at TIMESTAMPTZ,
    -- A photo exists only for a task that is completed, for ever.
    CONSTRAINT generated_photos_of_completed_task
    FOREIGN KEY (task_id, task_status) REFERENCES kie_tasks (id, status)
    DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX idx_generated_photos_avatar ON generated_photos (avatar_id, id DESC);
CREATE INDEX idx_generated_photos_job ON generated_photos (job_id, id);

-- A picture that came after its task had failed. Kept as evidence, never shown as delivered.
CREATE TABLE late_photos (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id BIGINT NOT NULL REFERENCES kie_tasks (id),
    attempt_id BIGINT NOT NULL UNIQUE REFERENCES task_attempts (id),
    object_key TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size_bytes BIGINT NOT NULL,
    content_type TEXT NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now()
);

CREATE FUNCTION completed_task_has_photo() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM kie_tasks t WHERE t.id = NEW.id AND t.status = 'completed')
       AND NOT EXISTS (SELECT FROM generated_photos p WHERE p.task_id = NEW.id) THEN
        RAISE EXCEPTION 'task % is completed and has no photo', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER kie_tasks_completed_has_photo
AFTER INSERT OR UPDATE OF status ON kie_tasks
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.status = 'completed')
EXECUTE FUNCTION completed_task_has_photo();

-- One payment, one generation: a consumed payment has its job and a job has its consumed payment.
CREATE FUNCTION consumed_payment_has_job() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM payments p WHERE p.id = NEW.id AND p.generation_consumed)
       AND NOT EXISTS (SELECT FROM generation_jobs j WHERE j.payment_id = NEW.id) THEN
        RAISE EXCEPTION 'payment % is consumed and has no job', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER payments_consumed_has_job
AFTER INSERT OR UPDATE OF generation_consumed ON payments
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.generation_consumed)
EXECUTE FUNCTION consumed_payment_has_job();

CREATE FUNCTION job_has_consumed_payment() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM payments p WHERE p.id = NEW.payment_id AND p.generation_consumed) THEN
        RAISE EXCEPTION 'job % has a payment that is not consumed', NEW.id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER generation_jobs_payment_consumed
AFTER INSERT ON generation_jobs
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
EXECUTE FUNCTION job_has_consumed_payment();

CREATE TABLE generation_dead_letter_queue (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    task_id BIGINT NOT NULL REFERENCES kie_tasks (id),
    job_id BIGINT NOT NULL REFERENCES generation_jobs (id),
    error_code TEXT NOT NULL,
    error_text TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    replayed_at TIMESTAMPTZ
);
CREATE UNIQUE INDEX idx_dead_letter_open ON generation_dead_letter_queue (task_id)
WHERE replayed_at IS NULL;

-- What goes to the chat, one row a photo or a text; sent at least once, each message id kept.
CREATE TABLE telegram_message_queue (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    chat_id BIGINT NOT NULL,
    job_id BIGINT REFERENCES generation_jobs (id),
    photo_id BIGINT UNIQUE REFERENCES generated_photos (id),
    status TEXT NOT NULL DEFAULT 'pending' CHECK (
        status IN ('pending', 'sending', 'sent', 'blocked', 'failed')
    ),
    message_id BIGINT,
    last_error TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    due_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    lease_until TIMESTAMPTZ,
    claim BIGINT NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX idx_telegram_due ON telegram_message_queue (due_at, id)
WHERE status IN ('pending', 'sending');
