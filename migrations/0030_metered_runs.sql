-- What a key may use up is kept beside the runs, and only for runs of keys that have such a limit:
-- for all others the one new column stays false, and nothing else happens.

ALTER TABLE api_keys ADD COLUMN limits_of uuid;
COMMENT ON COLUMN api_keys.limits_of IS
    'The key whose runs and budgets it shares, the first of a chain of rotations; NULL for its own. '
    'The row of that key is locked while a run of any of them is accepted.';

ALTER TABLE runs ADD COLUMN metered boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN runs.metered IS
    'Whether its key had a limit of runs or a budget when it was accepted: it has a reservation.';

CREATE TABLE reservations (
    tenant_id  uuid        NOT NULL,
    run_id     uuid        NOT NULL,
    limits_of  uuid        NOT NULL,
    running    boolean     NOT NULL DEFAULT true,
    settled_at timestamptz,
    PRIMARY KEY (tenant_id, run_id),
    CONSTRAINT reservations_coherent CHECK (NOT (running AND settled_at IS NOT NULL))
) WITH (fillfactor = 70);
-- What is counted when a run is accepted.
CREATE INDEX reservations_running ON reservations (tenant_id, limits_of) WHERE running;
COMMENT ON TABLE reservations IS
    'What a metered run takes of its key''s limits. Made by the commit that accepts the run, settled '
    'by the one that ends it, whoever ends it: see the trigger of runs.';
COMMENT ON COLUMN reservations.tenant_id IS 'The owner.';
COMMENT ON COLUMN reservations.run_id IS 'The run.';
COMMENT ON COLUMN reservations.limits_of IS 'The key whose limits it is held against: see api_keys.';
COMMENT ON COLUMN reservations.running IS
    'Whether it counts as running: queued or leased. A run that waits for a person does not.';
COMMENT ON COLUMN reservations.settled_at IS 'When the run ended; NULL before.';

ALTER TABLE reservations ENABLE ROW LEVEL SECURITY;
ALTER TABLE reservations FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON reservations TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON reservations TO baton_system USING (true) WITH CHECK (true);
-- A cancel ends a run as baton_app, a worker as baton_system.
GRANT SELECT, INSERT, UPDATE ON reservations TO baton_app;
GRANT SELECT, UPDATE ON reservations TO baton_system;

-- A trigger and not a part of each statement that moves a run: there are nine of them, and one that
-- forgot would hold a key's limits for ever. Its condition costs the others nothing to speak of.
CREATE FUNCTION follow_metered_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE reservations SET
        running = NEW.status IN ('queued', 'running'),
        settled_at = CASE WHEN NEW.finished_at IS NOT NULL THEN clock_timestamp() END
    WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id AND settled_at IS NULL;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION follow_metered_run() IS
    'Keeps the reservation of a metered run true when the run''s state changes.';
CREATE TRIGGER metered AFTER UPDATE OF status ON runs
    FOR EACH ROW WHEN (NEW.metered AND OLD.status IS DISTINCT FROM NEW.status)
    EXECUTE FUNCTION follow_metered_run();
