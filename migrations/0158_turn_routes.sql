CREATE TABLE turn_routes (
    tenant_id  uuid        NOT NULL,
    run_id     uuid        NOT NULL,
    step       integer     NOT NULL,
    attempt    integer     NOT NULL,
    route      json        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, run_id, step)
);
COMMENT ON TABLE turn_routes IS
    'The way of a model turn to its upstream, if others were left before it. A turn that the first upstream '
    'answered has no row.';
COMMENT ON COLUMN turn_routes.tenant_id IS 'The owner.';
COMMENT ON COLUMN turn_routes.run_id IS 'The run.';
COMMENT ON COLUMN turn_routes.step IS 'The turn.';
COMMENT ON COLUMN turn_routes.attempt IS 'The attempt that asked; a later one may ask the same turn again.';
COMMENT ON COLUMN turn_routes.route IS
    'The upstream that answers, the model''s name there, and the upstreams that were left, with the reasons.';
COMMENT ON COLUMN turn_routes.created_at IS 'When the answer began.';

ALTER TABLE turn_routes ENABLE ROW LEVEL SECURITY;
ALTER TABLE turn_routes FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON turn_routes TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON turn_routes TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT ON turn_routes TO baton_app;
-- The removal of a deleted thread takes the routes of its runs too.
GRANT SELECT, INSERT, UPDATE, DELETE ON turn_routes TO baton_system;
