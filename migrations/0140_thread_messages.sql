-- Threads that clients make, fill, list and delete.

ALTER TABLE threads ADD COLUMN deleted_at timestamptz;
COMMENT ON COLUMN threads.deleted_at IS
    'When a client deleted it; NULL before. From then on no request finds it, and the scheduler removes '
    'its rows in batches, this one last.';
CREATE INDEX threads_deleted ON threads (tenant_id, id) WHERE deleted_at IS NOT NULL;

CREATE TABLE thread_messages (
    tenant_id  uuid        NOT NULL,
    thread_id  uuid        NOT NULL,
    id         uuid        NOT NULL,
    run_id     uuid,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    position   bigint      NOT NULL CHECK (position >= 1),
    message    json        NOT NULL,
    PRIMARY KEY (tenant_id, thread_id, position),
    CONSTRAINT thread_messages_id UNIQUE (tenant_id, id),
    FOREIGN KEY (tenant_id, thread_id) REFERENCES threads (tenant_id, id)
) WITH (
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);
COMMENT ON TABLE thread_messages IS
    'The messages of threads: what the next run of a thread begins with.';
COMMENT ON COLUMN thread_messages.tenant_id IS 'The owner.';
COMMENT ON COLUMN thread_messages.thread_id IS 'The thread.';
COMMENT ON COLUMN thread_messages.id IS 'UUIDv7.';
COMMENT ON COLUMN thread_messages.run_id IS
    'The run that it was sent to, or that wrote it; NULL if a client appended it.';
COMMENT ON COLUMN thread_messages.created_at IS 'When it was added to the thread.';
COMMENT ON COLUMN thread_messages.position IS 'Its place in the thread, rising from 1.';
COMMENT ON COLUMN thread_messages.message IS
    'The message, an OpenAI chat message. json and not jsonb, because it goes to the model as it came.';

ALTER TABLE thread_messages ENABLE ROW LEVEL SECURITY;
ALTER TABLE thread_messages FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON thread_messages TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON thread_messages TO baton_system USING (true) WITH CHECK (true);

GRANT UPDATE (title, metadata, deleted_at) ON threads TO baton_app;
GRANT SELECT, INSERT ON thread_messages TO baton_app;

-- The runs of a thread: whether one has not ended, and all of them when the thread is deleted.
CREATE INDEX runs_thread ON runs (tenant_id, thread_id, id) WHERE thread_id IS NOT NULL;

-- The removal of a deleted thread needs these. Usage entries and reservations stay, because they are
-- accounts. Idempotency keys stay, so that a repeated submission makes no second run.
GRANT SELECT, DELETE ON thread_messages TO baton_system;
GRANT DELETE ON threads, runs, steps, messages, approvals TO baton_system;
