-- Keys that seal the summaries of compacted conversations. A client keeps such a summary and sends it
-- back to any server, so all servers take the key from here.

CREATE TABLE sealing_keys (
    tenant_id  uuid        NOT NULL PRIMARY KEY REFERENCES tenants (id),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    key        bytea       NOT NULL CHECK (length(key) = 32)
);
COMMENT ON TABLE sealing_keys IS
    'A key of each tenant that has compacted a conversation. Never changed: what it sealed stays readable.';
COMMENT ON COLUMN sealing_keys.tenant_id IS 'The owner.';
COMMENT ON COLUMN sealing_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN sealing_keys.key IS 'Random bytes. Secret.';

ALTER TABLE sealing_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE sealing_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON sealing_keys TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());

GRANT SELECT, INSERT ON sealing_keys TO baton_app;
