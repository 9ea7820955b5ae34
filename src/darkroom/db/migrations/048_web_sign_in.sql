-- Signing in outside Telegram: an e-mail address, links that open once, the letters that carry them, and the
-- address that a payment's receipt goes to.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

ALTER TABLE users
-- Lower case. Gone at the first moment of leaving: nothing that is owed back needs it.
ADD COLUMN email TEXT,
ADD CONSTRAINT users_email_is_one CHECK (
    email IS NULL OR (length(email) BETWEEN 3 AND 254 AND email = lower(email) AND position('@' IN email) > 1)
) NOT VALID,
ADD CONSTRAINT users_who_left_have_no_email CHECK (forget_at IS NULL OR email IS NULL) NOT VALID;
ALTER TABLE users
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT users_email_is_one,
-- squawk-ignore constraint-missing-not-valid
VALIDATE CONSTRAINT users_who_left_have_no_email;
-- Partial, as the one on the Telegram id and for its reason: giving the address up is an update of no key.
-- squawk-ignore require-concurrent-index-creation
CREATE UNIQUE INDEX idx_users_email ON users (email) WHERE email IS NOT NULL;

ALTER TABLE sessions
-- How its holder was known: signed init data, a link that opened once, or the word of somebody on this machine.
ADD COLUMN origin TEXT NOT NULL DEFAULT 'telegram',
ADD CONSTRAINT sessions_origin_check CHECK (origin IN ('telegram', 'link', 'demo')) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE sessions VALIDATE CONSTRAINT sessions_origin_check;

-- The token of a link is made of its row's number and a key of ours: it is stored nowhere.
CREATE TABLE sign_in_links (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    -- The wish that made it: read back after a commit whose answer was lost.
    request_id UUID NOT NULL UNIQUE,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    expires_at TIMESTAMPTZ NOT NULL,
    used_at TIMESTAMPTZ,
    CONSTRAINT sign_in_links_live_a_while CHECK (expires_at > created_at)
);
CREATE INDEX idx_sign_in_links_user ON sign_in_links (user_id);
CREATE INDEX idx_sign_in_links_expires ON sign_in_links (expires_at);

-- Letters to be sent, one row each; sent at least once. `sent` and `failed` are never left.
CREATE TABLE mail_outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    kind TEXT NOT NULL CHECK (kind IN ('sign_in')),
    link_id BIGINT NOT NULL UNIQUE REFERENCES sign_in_links (id),
    address TEXT NOT NULL CHECK (length(address) BETWEEN 3 AND 254),
    locale TEXT NOT NULL CHECK (locale IN ('ru', 'en')),
    status TEXT NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'failed')),
    due_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    lease_until TIMESTAMPTZ,
    claim BIGINT NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    last_error TEXT,
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    sent_at TIMESTAMPTZ,
    CONSTRAINT mail_outbox_sent_has_time CHECK ((status = 'sent') = (sent_at IS NOT NULL))
);
CREATE INDEX idx_mail_outbox_due ON mail_outbox (due_at, id) WHERE status = 'pending';
-- How many letters an address got lately.
CREATE INDEX idx_mail_outbox_user ON mail_outbox (user_id, created_at);
CREATE INDEX idx_mail_outbox_created ON mail_outbox (created_at);

ALTER TABLE payments
-- Where the seller's receipt goes. Kept until no money of its customer can go back: a refund has a receipt, too.
ADD COLUMN receipt_email TEXT,
ADD CONSTRAINT payments_receipt_email_is_one
CHECK (receipt_email IS NULL OR length(receipt_email) BETWEEN 3 AND 254) NOT VALID;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE payments VALIDATE CONSTRAINT payments_receipt_email_is_one;
