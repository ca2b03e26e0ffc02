CREATE DOMAIN approval_reason AS text CONSTRAINT approval_reason_known CHECK (VALUE IN (
    'outcome unknown'     -- begun, without a recorded result, of a tool that must not be called twice
));
COMMENT ON DOMAIN approval_reason IS
    'outcome unknown: the call was begun, its worker was lost before the result was recorded, and '
    'its tool cannot recognise a repetition.';

CREATE DOMAIN approval_decision AS text CONSTRAINT approval_decision_known CHECK (VALUE IN (
    'retry',              -- the call is made again, once
    'result',             -- it happened: the model is told this result
    'fail'                -- it is given up: the model is told that it failed
));
COMMENT ON DOMAIN approval_decision IS
    'retry: the call is made again, once. result: it happened, and the model is told this result. '
    'fail: it is given up, and the model is told that it failed.';

CREATE TABLE approvals (
    tenant_id  uuid              NOT NULL,
    id         uuid              NOT NULL,
    run_id     uuid              NOT NULL,
    created_at timestamptz       NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz       NOT NULL,
    decided_at timestamptz,
    decided_by uuid,
    step       integer           NOT NULL,
    attempt    integer           NOT NULL,
    reason     approval_reason   NOT NULL,
    decision   approval_decision,
    answer     text,
    PRIMARY KEY (tenant_id, id),
    -- One question per call and attempt, so that asking can be repeated.
    UNIQUE (tenant_id, run_id, step, attempt),
    CONSTRAINT approvals_decided_whole CHECK ((decision IS NULL) = (decided_at IS NULL))
);
-- A call waits for one decision at a time.
CREATE UNIQUE INDEX approvals_open ON approvals (tenant_id, run_id, step) WHERE decision IS NULL;
-- What is to be decided by its expiry.
CREATE INDEX approvals_expiring ON approvals (expires_at) WHERE decision IS NULL;

COMMENT ON TABLE approvals IS
    'Questions to a person: one for each call that a run is parked for. Made by the commit that '
    'parks the run, like steps without a foreign key; decided once. A decision holds for the call as it stands in steps, whose '
    'arguments never change, and for the next beginning of it: a later attempt that has begun the '
    'call has used it up.';
COMMENT ON COLUMN approvals.tenant_id IS 'The owner.';
COMMENT ON COLUMN approvals.id IS 'UUIDv7.';
COMMENT ON COLUMN approvals.run_id IS 'The run that waits.';
COMMENT ON COLUMN approvals.created_at IS 'When the run was parked.';
COMMENT ON COLUMN approvals.expires_at IS
    'When it is decided as fail, if nobody has decided; bounds the decision, not the execution.';
COMMENT ON COLUMN approvals.decided_at IS 'When it was decided; NULL before.';
COMMENT ON COLUMN approvals.decided_by IS 'The API key that decided; NULL before, and if it expired '
    'or was decided over the bus.';
COMMENT ON COLUMN approvals.step IS 'The call.';
COMMENT ON COLUMN approvals.attempt IS 'The attempt that asks.';
COMMENT ON COLUMN approvals.reason IS 'Why a person is asked: see the domain approval_reason.';
COMMENT ON COLUMN approvals.decision IS 'What is to be done: see the domain approval_decision. NULL '
    'while undecided.';
COMMENT ON COLUMN approvals.answer IS 'What the model is told, for result and fail; else NULL.';

ALTER TABLE approvals ENABLE ROW LEVEL SECURITY;
ALTER TABLE approvals FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON approvals TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON approvals TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT ON approvals TO baton_app;
GRANT UPDATE (decision, answer, decided_at, decided_by) ON approvals TO baton_app;
GRANT SELECT, INSERT, UPDATE ON approvals TO baton_system;
-- A decision queues the run again.
GRANT UPDATE (queued_at) ON runs TO baton_app;

-- What waits for a person is counted.
CREATE INDEX runs_parked ON runs (tenant_id, id) WHERE status = 'awaiting_approval';
