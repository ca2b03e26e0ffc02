-- An approval may hold for later calls of its tool too: in its run, or on its thread.
CREATE TABLE approval_grants (
    tenant_id   uuid        NOT NULL,
    approval_id uuid        NOT NULL,
    run_id      uuid        NOT NULL,
    thread_id   uuid,
    tool        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    revoked_at  timestamptz,
    PRIMARY KEY (tenant_id, approval_id)
);
-- Each attempt of a run with a guarded tool reads its grants.
CREATE INDEX approval_grants_of_run ON approval_grants (tenant_id, run_id);
CREATE INDEX approval_grants_of_thread ON approval_grants (tenant_id, thread_id) WHERE thread_id IS NOT NULL;

COMMENT ON TABLE approval_grants IS
    'Approvals that hold for later calls of the same tool. Made by the commit of the decision, and removed '
    'with their run.';
COMMENT ON COLUMN approval_grants.tenant_id IS 'The owner.';
COMMENT ON COLUMN approval_grants.approval_id IS 'The question that was approved.';
COMMENT ON COLUMN approval_grants.run_id IS 'The run that asked it.';
COMMENT ON COLUMN approval_grants.thread_id IS
    'The thread whose runs need no other approval of the tool; NULL if the grant holds in its run alone.';
COMMENT ON COLUMN approval_grants.tool IS 'The name of the tool.';
COMMENT ON COLUMN approval_grants.created_at IS 'When it was approved.';
COMMENT ON COLUMN approval_grants.revoked_at IS
    'When the grant was revoked: attempts that begin later ask again. NULL while it holds.';

ALTER TABLE approval_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE approval_grants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON approval_grants TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON approval_grants TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON approval_grants TO baton_app;
GRANT UPDATE (revoked_at) ON approval_grants TO baton_app;
-- The removal of a run takes its grants too.
GRANT SELECT, DELETE ON approval_grants TO baton_system;
