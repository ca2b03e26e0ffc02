CREATE DOMAIN one_time_kind AS text CONSTRAINT one_time_kind_known CHECK (VALUE IN (
    'invite',             -- join a tenant with a role
    'password_reset',     -- set a new password
    'bootstrap'           -- be the first owner of a tenant that has none
));
COMMENT ON DOMAIN one_time_kind IS
    'invite: join a tenant with a role. password_reset: set a new password. bootstrap: be the '
    'first owner of a tenant that has none.';

CREATE TABLE one_time_tokens (
    id         uuid          NOT NULL PRIMARY KEY,
    kind       one_time_kind NOT NULL,
    hash       bytea         NOT NULL UNIQUE CHECK (length(hash) = 32),
    tenant_id  uuid          REFERENCES tenants (id),
    user_id    uuid          REFERENCES users (id),
    email      text          CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 254),
    role       member_role,
    created_by text          NOT NULL,
    created_at timestamptz   NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz   NOT NULL,
    used_at    timestamptz,
    used_by    uuid,
    revoked_at timestamptz,
    CONSTRAINT one_time_tokens_coherent CHECK (CASE kind
        WHEN 'password_reset' THEN user_id IS NOT NULL AND tenant_id IS NULL AND role IS NULL
        ELSE tenant_id IS NOT NULL AND role IS NOT NULL AND user_id IS NULL
    END)
);
CREATE INDEX one_time_tokens_tenant ON one_time_tokens (tenant_id, id);
COMMENT ON TABLE one_time_tokens IS
    'Tokens that let somebody do one thing once. Baton sends no mail: whoever makes a token hands '
    'it over.';
COMMENT ON COLUMN one_time_tokens.id IS 'UUIDv7; names it where it is listed and revoked.';
COMMENT ON COLUMN one_time_tokens.kind IS 'See the domain one_time_kind.';
COMMENT ON COLUMN one_time_tokens.hash IS 'SHA-256 of the whole token as it is sent.';
COMMENT ON COLUMN one_time_tokens.tenant_id IS 'The tenant to join; NULL for a password reset.';
COMMENT ON COLUMN one_time_tokens.user_id IS 'Whose password; NULL otherwise.';
COMMENT ON COLUMN one_time_tokens.email IS 'The only address it is good for; NULL for any.';
COMMENT ON COLUMN one_time_tokens.role IS 'The role to join with; NULL for a password reset.';
COMMENT ON COLUMN one_time_tokens.created_by IS 'Who made it, as the audit log names actors.';
COMMENT ON COLUMN one_time_tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN one_time_tokens.expires_at IS 'From when on it is refused.';
COMMENT ON COLUMN one_time_tokens.used_at IS 'When it was used; NULL before.';
COMMENT ON COLUMN one_time_tokens.used_by IS 'The person who used it; NULL before.';
COMMENT ON COLUMN one_time_tokens.revoked_at IS 'Since when it is refused; NULL if it is not.';

ALTER TABLE one_time_tokens ENABLE ROW LEVEL SECURITY;
ALTER TABLE one_time_tokens FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON one_time_tokens TO baton_app
    USING (tenant_id = current_tenant() AND kind = 'invite')
    WITH CHECK (tenant_id = current_tenant() AND kind = 'invite');
CREATE POLICY system ON one_time_tokens TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON one_time_tokens TO baton_app;
GRANT UPDATE (revoked_at) ON one_time_tokens TO baton_app;
GRANT SELECT, INSERT ON one_time_tokens TO baton_system;
GRANT UPDATE (used_at, used_by, revoked_at) ON one_time_tokens TO baton_system;

CREATE TABLE sign_in_throttle (
    key      bytea       NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    ready_at timestamptz NOT NULL
);
CREATE INDEX sign_in_throttle_ready ON sign_in_throttle (ready_at);
COMMENT ON TABLE sign_in_throttle IS
    'How often passwords were tried, shared by all servers. A row is a bucket that leaks: each try '
    'moves ready_at on, and a try is refused while ready_at is too far ahead.';
COMMENT ON COLUMN sign_in_throttle.key IS 'SHA-256 of what is counted: an address with an account, or alone.';
COMMENT ON COLUMN sign_in_throttle.ready_at IS 'When the bucket will be empty.';

ALTER TABLE sign_in_throttle ENABLE ROW LEVEL SECURITY;
ALTER TABLE sign_in_throttle FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON sign_in_throttle TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE, DELETE ON sign_in_throttle TO baton_system;
