CREATE DOMAIN step_kind AS text CONSTRAINT step_kind_known CHECK (VALUE IN (
    'turn',               -- one answer of the model
    'call'                -- one call of a server-side tool
));
COMMENT ON DOMAIN step_kind IS
    'turn: one answer of the model. call: one call of a server-side tool.';

CREATE DOMAIN step_state AS text CONSTRAINT step_state_known CHECK (VALUE IN (
    'pending',            -- asked for by the model, not begun
    'started',            -- begun; recorded only for calls that must not happen twice
    'finished'            -- its result is recorded and never made again
));
COMMENT ON DOMAIN step_state IS
    'pending: asked for by the model, not begun. started: begun, recorded only for calls that must '
    'not happen twice. finished: its result is recorded, and it never happens again.';

CREATE DOMAIN tool_effect AS text CONSTRAINT tool_effect_known CHECK (VALUE IN (
    'pure',               -- changes nothing
    'idempotent',         -- recognises its idempotency key
    'at_most_once'        -- cannot recognise a repetition
));
COMMENT ON DOMAIN tool_effect IS
    'pure: changes nothing. idempotent: recognises its idempotency key. at_most_once: cannot '
    'recognise a repetition.';

CREATE TABLE steps (
    tenant_id         uuid        NOT NULL,
    run_id            uuid        NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at        timestamptz,
    finished_at       timestamptz,
    last_event_id     bigint,
    duration_ms       bigint,
    prompt_tokens     bigint,
    completion_tokens bigint,
    total_tokens      bigint,
    step              integer     NOT NULL,
    attempt           integer     NOT NULL,
    ok                boolean,
    kind              step_kind   NOT NULL,
    state             step_state  NOT NULL,
    finish_reason     finish_reason,
    effect            tool_effect,
    call_id           text,
    name              text,
    arguments         text,
    PRIMARY KEY (tenant_id, run_id, step)
) WITH (
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);
COMMENT ON TABLE steps IS
    'The ledger of a run: one row per model turn or tool call. Written only by a statement that '
    'has locked the run''s row and found its fence there: no foreign key is checked a second time.';
COMMENT ON COLUMN steps.tenant_id IS 'The owner.';
COMMENT ON COLUMN steps.run_id IS 'The run.';
COMMENT ON COLUMN steps.created_at IS 'When the row was made; for a turn, when it was recorded.';
COMMENT ON COLUMN steps.started_at IS 'When the call was begun; NULL if that was not recorded.';
COMMENT ON COLUMN steps.finished_at IS 'When its result was recorded; NULL before.';
COMMENT ON COLUMN steps.last_event_id IS
    'The last event that its record stands behind; NULL before it is finished.';
COMMENT ON COLUMN steps.duration_ms IS 'How long the call took, in milliseconds; NULL for a turn.';
COMMENT ON COLUMN steps.prompt_tokens IS 'Tokens the model read in this turn; NULL for a call.';
COMMENT ON COLUMN steps.completion_tokens IS 'Tokens it wrote in this turn; NULL for a call.';
COMMENT ON COLUMN steps.total_tokens IS 'Their sum, as reported; NULL for a call.';
COMMENT ON COLUMN steps.step IS 'Its place in the transcript, from 1, dense.';
COMMENT ON COLUMN steps.attempt IS 'The attempt that wrote the row last.';
COMMENT ON COLUMN steps.ok IS 'Whether the tool did what it was asked; NULL before, and for a turn.';
COMMENT ON COLUMN steps.kind IS 'See the domain step_kind.';
COMMENT ON COLUMN steps.state IS 'See the domain step_state. A turn is only ever finished.';
COMMENT ON COLUMN steps.finish_reason IS 'Why the turn ended; NULL for a call.';
COMMENT ON COLUMN steps.effect IS 'What calling twice would mean; NULL for a turn.';
COMMENT ON COLUMN steps.call_id IS 'The call''s id, as the model gave it; NULL for a turn.';
COMMENT ON COLUMN steps.name IS 'The tool; NULL for a turn.';
COMMENT ON COLUMN steps.arguments IS
    'What the model wrote as arguments, which need not be JSON; NULL for a turn.';

ALTER TABLE steps ENABLE ROW LEVEL SECURITY;
ALTER TABLE steps FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON steps TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON steps TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT ON steps TO baton_app;
GRANT SELECT, INSERT, UPDATE ON steps TO baton_system;
