-- What a buyer agreed to, and the first time that a person came, uploaded, chose, paid and got.
SET LOCAL lock_timeout = '5s';
-- The second half reads users, selfies, payments and jobs once; nobody waits for it.
SET LOCAL statement_timeout = '300s';

CREATE TABLE consents (
    payment_id BIGINT PRIMARY KEY REFERENCES payments (id),
    -- Of the terms and the privacy page in that language, as they stood then (docs/operating.md, "Your brand").
    terms_sha256 TEXT NOT NULL CHECK (terms_sha256 ~ '^[0-9a-f]{64}$'),
    locale TEXT NOT NULL CHECK (locale IN ('ru', 'en')),
    consented_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now()
);

CREATE TABLE funnel_steps (
    user_id BIGINT NOT NULL REFERENCES users (id),
    step TEXT NOT NULL CHECK (step IN ('opened', 'uploaded', 'chose', 'paid', 'got')),
    at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    PRIMARY KEY (user_id, step)
);
-- A report reads the days it is asked for, however long the shop has been open.
CREATE INDEX idx_funnel_steps_time ON funnel_steps (step, at);

-- Who was here before is not new today.
INSERT INTO funnel_steps (user_id, step, at)
SELECT u.id, 'opened', u.created_at FROM users u
UNION ALL
SELECT a.user_id, 'uploaded', min(r.created_at)
FROM reference_photos r JOIN avatars a ON a.id = r.avatar_id GROUP BY a.user_id
UNION ALL
SELECT p.user_id, 'chose', min(p.created_at) FROM payments p WHERE p.provider <> 'grant' GROUP BY p.user_id
UNION ALL
SELECT p.user_id, 'paid', min(p.succeeded_at) FROM payments p
WHERE p.provider <> 'grant' AND p.succeeded_at IS NOT NULL GROUP BY p.user_id
UNION ALL
SELECT j.user_id, 'got', min(j.finished_at) FROM generation_jobs j
WHERE j.status IN ('completed', 'partial') AND j.finished_at IS NOT NULL GROUP BY j.user_id;
