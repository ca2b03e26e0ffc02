CREATE DOMAIN session_end AS text CONSTRAINT session_end_known CHECK (VALUE IN (
    'logout',             -- the person signed out
    'revoked',            -- the person ended it from another session
    'reuse',              -- a refresh token was presented that had been used before
    'password',           -- the password was changed or reset
    'operator'            -- an operator disabled the person
));
COMMENT ON DOMAIN session_end IS
    'logout: the person signed out. revoked: the person ended it from another session. reuse: a '
    'refresh token was presented that had been used before. password: the password was changed or '
    'reset. operator: an operator disabled the person.';

CREATE TABLE sessions (
    id           uuid        NOT NULL PRIMARY KEY,
    user_id      uuid        NOT NULL REFERENCES users (id),
    tenant_id    uuid        NOT NULL REFERENCES tenants (id),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz NOT NULL,
    rotated_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at   timestamptz,
    end_reason   session_end,
    generation   integer     NOT NULL DEFAULT 1,
    token_hash   bytea       NOT NULL CHECK (length(token_hash) = 32),
    ip           text,
    user_agent   text,
    CONSTRAINT sessions_end_coherent CHECK ((revoked_at IS NULL) = (end_reason IS NULL))
);
CREATE INDEX sessions_user ON sessions (user_id, id);
COMMENT ON TABLE sessions IS
    'Sign-ins of people: one row for each family of refresh tokens. All decisions about a refresh '
    'are made on this row, under its lock. Only the system role reaches it.';
COMMENT ON COLUMN sessions.id IS 'UUIDv7; access tokens name it as sid.';
COMMENT ON COLUMN sessions.user_id IS 'The person.';
COMMENT ON COLUMN sessions.tenant_id IS 'The tenant that the next access token names.';
COMMENT ON COLUMN sessions.created_at IS 'When they signed in.';
COMMENT ON COLUMN sessions.last_used_at IS 'When it was last refreshed.';
COMMENT ON COLUMN sessions.expires_at IS 'From when on it cannot be refreshed; fixed at sign-in.';
COMMENT ON COLUMN sessions.rotated_at IS
    'When the newest refresh token was made: its predecessor is answered for a moment longer.';
COMMENT ON COLUMN sessions.revoked_at IS 'Since when it is over; NULL while it is not.';
COMMENT ON COLUMN sessions.end_reason IS 'Why it is over: see the domain session_end.';
COMMENT ON COLUMN sessions.generation IS 'Which refresh token in a row is the newest, from 1.';
COMMENT ON COLUMN sessions.token_hash IS 'SHA-256 of the newest refresh token.';
COMMENT ON COLUMN sessions.ip IS 'Where they signed in from.';
COMMENT ON COLUMN sessions.user_agent IS 'What they signed in with, as it called itself.';

ALTER TABLE sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON sessions TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, DELETE ON sessions TO baton_system;
GRANT UPDATE (tenant_id, last_used_at, rotated_at, revoked_at, end_reason, generation, token_hash)
    ON sessions TO baton_system;

CREATE TABLE refresh_tokens (
    hash       bytea       NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    session_id uuid        NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    generation integer     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (session_id, generation)
);
COMMENT ON TABLE refresh_tokens IS
    'Every refresh token that was ever given out, so that an old one is recognised when it is '
    'presented again. Rows are never changed. Only the system role reaches it.';
COMMENT ON COLUMN refresh_tokens.hash IS 'SHA-256 of the whole token as it is sent.';
COMMENT ON COLUMN refresh_tokens.session_id IS 'The sign-in that it belongs to.';
COMMENT ON COLUMN refresh_tokens.generation IS 'Which one in a row it is.';
COMMENT ON COLUMN refresh_tokens.created_at IS 'When it was given out.';

ALTER TABLE refresh_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE refresh_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON refresh_tokens TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON refresh_tokens TO baton_system;
