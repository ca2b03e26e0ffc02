-- A name list is a CHECK on a domain and not on the table: PostgreSQL prepares a table's CHECKs
-- anew for every statement, a domain's once per connection, and this table is written to three
-- times in every chat.
CREATE DOMAIN run_status AS text CONSTRAINT run_status_known CHECK (VALUE IN (
    'queued',             -- nobody holds it, and a job for it is on its way or due
    'running',            -- one worker holds a lease
    'awaiting_approval',  -- a tool call waits for a person; no lease, no job
    'completed',          -- ended with an answer or at a limit; final
    'failed',             -- ended without one; final
    'cancelled'           -- ended because somebody asked for it; final
));
COMMENT ON DOMAIN run_status IS
    'queued: nobody holds the run, a job for it is on its way or due. running: one worker holds a '
    'lease. awaiting_approval: a tool call waits for a person, no lease and no job. completed: '
    'ended with an answer or at a limit. failed: ended without one. cancelled: ended because '
    'somebody asked for it. The last three are final.';

CREATE DOMAIN run_lane AS text CONSTRAINT run_lane_known CHECK (VALUE IN (
    'interactive',        -- somebody waits for the answer
    'background'          -- nobody does
));
COMMENT ON DOMAIN run_lane IS
    'interactive: somebody waits for the answer. background: nobody does.';

CREATE DOMAIN finish_reason AS text CONSTRAINT finish_reason_known CHECK (VALUE IN (
    'stop',               -- the model had said all it had to say
    'length',             -- the token limit
    'tool_calls',         -- the client is to execute tool calls
    'content_filter',     -- the upstream withheld the rest
    'max_turns'           -- the limit of model turns
));
COMMENT ON DOMAIN finish_reason IS
    'stop: the model had said all it had to say. length: the token limit. tool_calls: the client '
    'is to execute tool calls. content_filter: the upstream withheld the rest. max_turns: the '
    'limit of model turns.';

CREATE TABLE runs (
    tenant_id            uuid        NOT NULL,
    id                   uuid        NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    queued_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    published_at         timestamptz,
    started_at           timestamptz,
    finished_at          timestamptz,
    lease_expires_at     timestamptz,
    cancel_requested_at  timestamptz,
    last_event_id        bigint      NOT NULL DEFAULT 0,
    job_seq              bigint,
    prompt_tokens        bigint      NOT NULL DEFAULT 0,
    completion_tokens    bigint      NOT NULL DEFAULT 0,
    total_tokens         bigint      NOT NULL DEFAULT 0,
    attempt              integer     NOT NULL DEFAULT 0,
    failures             integer     NOT NULL DEFAULT 0,
    agent_version        integer     NOT NULL,
    claim_token          uuid,
    worker_id            uuid,
    thread_id            uuid,
    api_key_id           uuid,
    cancel_on_disconnect boolean     NOT NULL,
    status               run_status  NOT NULL DEFAULT 'queued',
    lane                 run_lane    NOT NULL,
    finish_reason        finish_reason,
    error_code           text,
    error_message        text,
    cancel_reason        text,
    model                text        NOT NULL,
    agent_name           text        NOT NULL,
    metadata             json,
    spec                 json        NOT NULL,
    PRIMARY KEY (tenant_id, id),
    -- One CHECK for what the states mean: see the note on domains above.
    CONSTRAINT runs_state_coherent CHECK (
        (status = 'running') = (lease_expires_at IS NOT NULL)
        AND (finished_at IS NULL) = (status IN ('queued', 'running', 'awaiting_approval'))
        AND (status = 'completed') = (finish_reason IS NOT NULL)
        AND (status = 'failed') = (error_code IS NOT NULL)
    )
) WITH (
    -- Room on each page for the next version of its rows, and statistics and dead rows looked
    -- after by the count of rows and not by a fifth of a table that only grows.
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);

-- What waits: counted by the queue limits, and looked through for jobs that got lost.
CREATE INDEX runs_queued ON runs (tenant_id, id) WHERE status = 'queued';
-- What is leased. The lease's end is not indexed: renewing it stays within the page.
CREATE INDEX runs_running ON runs (tenant_id, id) WHERE status = 'running';
-- A thread has at most one active run.
CREATE UNIQUE INDEX runs_thread_active ON runs (tenant_id, thread_id)
    WHERE thread_id IS NOT NULL AND status IN ('running', 'awaiting_approval');

COMMENT ON TABLE runs IS
    'One execution of an agent over some input. A committed row is an accepted run. Every write of '
    'its holder is guarded by attempt, claim_token and status = running.';
COMMENT ON COLUMN runs.tenant_id IS 'The owner.';
COMMENT ON COLUMN runs.id IS 'UUIDv7: lists are sorted by it.';
COMMENT ON COLUMN runs.created_at IS 'When it was accepted.';
COMMENT ON COLUMN runs.queued_at IS
    'Since when a job for it is due: when it was accepted, handed over, or taken from a lost worker.';
COMMENT ON COLUMN runs.published_at IS
    'When the scheduler last published a job again; NULL if only the accepting server did.';
COMMENT ON COLUMN runs.started_at IS 'When it was first claimed; NULL before.';
COMMENT ON COLUMN runs.finished_at IS 'When it ended; NULL before.';
COMMENT ON COLUMN runs.lease_expires_at IS
    'Until when the holder may be trusted to live, by this server''s clock; NULL unless running.';
COMMENT ON COLUMN runs.cancel_requested_at IS
    'Since when the holder is asked to stop; NULL if nobody asked.';
COMMENT ON COLUMN runs.last_event_id IS
    'The id of the last event that the last commit stands behind; of the terminal event once ended.';
COMMENT ON COLUMN runs.job_seq IS
    'The stream sequence of the job that the newest claim was made for; tells a repeated delivery '
    'of that job from a stray copy.';
COMMENT ON COLUMN runs.prompt_tokens IS 'Tokens the model read, over all recorded turns.';
COMMENT ON COLUMN runs.completion_tokens IS 'Tokens the model wrote, over all recorded turns.';
COMMENT ON COLUMN runs.total_tokens IS 'Their sum, as the upstream reported it.';
COMMENT ON COLUMN runs.attempt IS
    'The newest attempt; +1 with each claim and each ending from outside. It only fences.';
COMMENT ON COLUMN runs.failures IS
    'Claims since the last progress: +1 at claim, -1 at hand-over, 0 at each recorded step.';
COMMENT ON COLUMN runs.agent_version IS 'The version of the agent that was resolved.';
COMMENT ON COLUMN runs.claim_token IS
    'Random, drawn for the newest claim: fences beside attempt, and makes a claim and an ending '
    'repeatable whose answer was lost. NULL before the first.';
COMMENT ON COLUMN runs.worker_id IS 'Who made the newest claim; NULL before the first.';
COMMENT ON COLUMN runs.thread_id IS 'The thread it continues; NULL if none.';
COMMENT ON COLUMN runs.api_key_id IS 'The key it was submitted with; NULL if none.';
COMMENT ON COLUMN runs.cancel_on_disconnect IS
    'Whether the caller''s going away cancels it.';
COMMENT ON COLUMN runs.status IS 'See the domain run_status.';
COMMENT ON COLUMN runs.lane IS 'See the domain run_lane.';
COMMENT ON COLUMN runs.finish_reason IS 'Why it completed: see the domain finish_reason.';
COMMENT ON COLUMN runs.error_code IS 'A stable word for why it failed; NULL unless failed.';
COMMENT ON COLUMN runs.error_message IS 'A sentence for people; NULL unless failed.';
COMMENT ON COLUMN runs.cancel_reason IS 'Who or what asked for the cancel; the first one stands.';
COMMENT ON COLUMN runs.model IS 'The upstream''s name of the model.';
COMMENT ON COLUMN runs.agent_name IS 'The agent that was resolved.';
COMMENT ON COLUMN runs.metadata IS 'The client''s own words about it, an object; NULL if none.';
COMMENT ON COLUMN runs.spec IS
    'What is to be done, fixed at acceptance, versioned: the resolved agent and the request. json '
    'and not jsonb, because it is read back byte for byte and never looked into.';

ALTER TABLE runs ENABLE ROW LEVEL SECURITY;
ALTER TABLE runs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON runs TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON runs TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON runs TO baton_app;
-- What a cancel writes, and no more.
GRANT UPDATE (status, attempt, last_event_id, cancel_requested_at, cancel_reason, finished_at)
    ON runs TO baton_app;
GRANT SELECT, UPDATE ON runs TO baton_system;
