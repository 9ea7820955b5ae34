-- Who asks, and with which selfies.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- The only clock of the database, leases included. Tests replace it to move time.
CREATE FUNCTION darkroom_now() RETURNS TIMESTAMPTZ
LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT clock_timestamp() $$;

CREATE TABLE users (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    telegram_user_id BIGINT UNIQUE,
    locale TEXT NOT NULL DEFAULT 'ru' CHECK (locale IN ('ru', 'en')),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now()
);

CREATE TABLE avatars (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id),
    name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    -- A tombstone: the row stays, so that the books and the counts stay.
    deleted_at TIMESTAMPTZ
);
CREATE INDEX idx_avatars_user ON avatars (user_id);

CREATE TABLE reference_photos (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    avatar_id BIGINT NOT NULL REFERENCES avatars (id),
    object_key TEXT NOT NULL,
    sha256 TEXT NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    size_bytes BIGINT NOT NULL CHECK (size_bytes > 0),
    content_type TEXT NOT NULL,
    width INTEGER NOT NULL CHECK (width > 0),
    height INTEGER NOT NULL CHECK (height > 0),
    created_at TIMESTAMPTZ NOT NULL DEFAULT darkroom_now(),
    deleted_at TIMESTAMPTZ,
    -- The same selfie sent twice is one selfie.
    UNIQUE (avatar_id, sha256)
);
