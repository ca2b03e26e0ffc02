CREATE TABLE messages (
    tenant_id  uuid        NOT NULL,
    run_id     uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    thread_id  uuid,
    step       integer     NOT NULL,
    message    json        NOT NULL,
    PRIMARY KEY (tenant_id, run_id, step)
) WITH (
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);
CREATE INDEX messages_thread ON messages (tenant_id, thread_id, run_id, step)
    WHERE thread_id IS NOT NULL;

COMMENT ON TABLE messages IS
    'What runs said: one OpenAI chat message per finished step, written in the same commit. A '
    'run''s input is part of its spec.';
COMMENT ON COLUMN messages.tenant_id IS 'The owner.';
COMMENT ON COLUMN messages.run_id IS 'The run that wrote it.';
COMMENT ON COLUMN messages.created_at IS 'When it was recorded.';
COMMENT ON COLUMN messages.thread_id IS 'The run''s thread; NULL if it has none.';
COMMENT ON COLUMN messages.step IS 'The step that it is the result of.';
COMMENT ON COLUMN messages.message IS
    'The message object. json and not jsonb, because it goes back to the model as it came.';

ALTER TABLE messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE messages FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON messages TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON messages TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT ON messages TO baton_app;
GRANT SELECT, INSERT ON messages TO baton_system;
