CREATE TABLE idempotency_keys (
    tenant_id   uuid        NOT NULL,
    run_id      uuid        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    key         text        NOT NULL CHECK (key <> '' AND length(key) <= 255),
    fingerprint bytea       NOT NULL CHECK (length(fingerprint) = 32),
    PRIMARY KEY (tenant_id, key)
);
COMMENT ON TABLE idempotency_keys IS
    'Which run a caller''s Idempotency-Key made. Committed together with the run, and kept as long.';
COMMENT ON COLUMN idempotency_keys.tenant_id IS 'The owner.';
COMMENT ON COLUMN idempotency_keys.run_id IS 'The run that the key made.';
COMMENT ON COLUMN idempotency_keys.created_at IS 'When it was first used.';
COMMENT ON COLUMN idempotency_keys.key IS 'What the caller sent.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS
    'SHA-256 of the route and body: the same key with another body is refused.';

ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency_keys TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());

GRANT SELECT, INSERT ON idempotency_keys TO baton_app;
