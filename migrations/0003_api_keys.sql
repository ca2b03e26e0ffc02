CREATE TABLE api_keys (
    tenant_id      uuid        NOT NULL REFERENCES tenants (id),
    id             uuid        NOT NULL,
    hash           bytea       NOT NULL UNIQUE CHECK (length(hash) = 32),
    name           text        NOT NULL CHECK (name <> '' AND length(name) <= 200),
    prefix         text        NOT NULL,
    scopes         text[]      NOT NULL,
    allowed_models text[],
    allowed_tools  text[],
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at     timestamptz,
    revoked_at     timestamptz,
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE api_keys IS
    'Machines'' credentials. The secret itself is nowhere: it is looked up by its hash, across '
    'tenants, by the system role.';
COMMENT ON COLUMN api_keys.tenant_id IS 'The tenant that a caller with this key acts for.';
COMMENT ON COLUMN api_keys.id IS 'UUIDv7; names the key where it is listed, revoked and logged.';
COMMENT ON COLUMN api_keys.hash IS 'SHA-256 of the whole key as it is sent.';
COMMENT ON COLUMN api_keys.name IS 'What its owner calls it.';
COMMENT ON COLUMN api_keys.prefix IS 'The first characters of the key, to recognise it by.';
COMMENT ON COLUMN api_keys.scopes IS 'What it may do, for instance runs:write.';
COMMENT ON COLUMN api_keys.allowed_models IS 'The models it may ask for; NULL for all.';
COMMENT ON COLUMN api_keys.allowed_tools IS 'The server-side tools it may use; NULL for all.';
COMMENT ON COLUMN api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN api_keys.expires_at IS 'From when on it is refused; NULL for never.';
COMMENT ON COLUMN api_keys.revoked_at IS 'Since when it is refused; NULL if it is not.';

ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_keys TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON api_keys TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON api_keys TO baton_app;
GRANT UPDATE (revoked_at) ON api_keys TO baton_app;
GRANT SELECT ON api_keys TO baton_system;
