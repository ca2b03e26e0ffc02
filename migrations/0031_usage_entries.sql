CREATE TABLE usage_entries (
    tenant_id     uuid        NOT NULL,
    run_id        uuid        NOT NULL,
    api_key_id    uuid,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    input_tokens  bigint      NOT NULL,
    cached_tokens bigint      NOT NULL,
    output_tokens bigint      NOT NULL,
    cost_nanos    bigint,
    day           date        NOT NULL,
    step          integer     NOT NULL,
    estimated     boolean     NOT NULL,
    model         text        NOT NULL,
    -- In the order in which it is asked for. A run's first turn is its step 1, so that runs can be
    -- counted without sorting them.
    PRIMARY KEY (tenant_id, day, run_id, step)
) WITH (
    autovacuum_vacuum_insert_scale_factor = 0.1,
    autovacuum_analyze_scale_factor = 0.05
);
COMMENT ON TABLE usage_entries IS
    'What was used up: a row per model turn, written by the commit that records the turn, and never '
    'changed. It outlives its run.';
COMMENT ON COLUMN usage_entries.tenant_id IS 'The owner.';
COMMENT ON COLUMN usage_entries.run_id IS 'The run.';
COMMENT ON COLUMN usage_entries.api_key_id IS 'The key it was submitted with; NULL if none.';
COMMENT ON COLUMN usage_entries.at IS 'When the turn was recorded.';
COMMENT ON COLUMN usage_entries.input_tokens IS 'Tokens the model read.';
COMMENT ON COLUMN usage_entries.cached_tokens IS
    'Those of them that the upstream said it had read before.';
COMMENT ON COLUMN usage_entries.output_tokens IS 'Tokens the model wrote, shown or not.';
COMMENT ON COLUMN usage_entries.cost_nanos IS
    'Their price at that moment, in billionths of the currency of the prices; NULL if there was none.';
COMMENT ON COLUMN usage_entries.day IS
    'The day, UTC, on which the run was accepted: all of a run is in one day, and in one month.';
COMMENT ON COLUMN usage_entries.step IS 'The turn''s place in the transcript.';
COMMENT ON COLUMN usage_entries.estimated IS
    'Whether its tokens are Baton''s guess, because the upstream did not tell them.';
COMMENT ON COLUMN usage_entries.model IS 'The upstream''s name of the model.';

ALTER TABLE usage_entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE usage_entries FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON usage_entries TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON usage_entries TO baton_system USING (true) WITH CHECK (true);
-- No role of the servers changes or removes a row.
GRANT SELECT ON usage_entries TO baton_app;
GRANT SELECT, INSERT ON usage_entries TO baton_system;
