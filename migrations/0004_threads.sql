CREATE TABLE threads (
    tenant_id  uuid        NOT NULL REFERENCES tenants (id),
    id         uuid        NOT NULL,
    title      text,
    metadata   json,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id)
);
COMMENT ON TABLE threads IS
    'Stored conversations. At most one run of a thread is active: see the index runs_thread_active.';
COMMENT ON COLUMN threads.tenant_id IS 'The owner.';
COMMENT ON COLUMN threads.id IS 'UUIDv7.';
COMMENT ON COLUMN threads.title IS 'For people; NULL if nobody gave one.';
COMMENT ON COLUMN threads.metadata IS 'The client''s own words about it, an object; NULL if none.';
COMMENT ON COLUMN threads.created_at IS 'When it was made.';

ALTER TABLE threads ENABLE ROW LEVEL SECURITY;
ALTER TABLE threads FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON threads TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON threads TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON threads TO baton_app;
GRANT SELECT ON threads TO baton_system;
