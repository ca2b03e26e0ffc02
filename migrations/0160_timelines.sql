-- A run's row shows its newest attempt alone. Its timeline also needs the earlier ones, the reason why each
-- of them ended, and the times of its turns.

CREATE DOMAIN attempt_ending AS text CONSTRAINT attempt_ending_known CHECK (VALUE IN (
    'handed_over',        -- its worker gave the run back, mostly because it drained
    'parked',             -- a call of the run waits for a person
    'awaits_budget',      -- the next turn waits until other runs of the key have settled
    'lease_expired',      -- its worker did not renew the lease
    'worker_lost'         -- its worker had left the bus and wrote nothing
));
COMMENT ON DOMAIN attempt_ending IS
    'handed_over: the worker gave the run back, mostly because it drained. parked: a call waits for a '
    'person. awaits_budget: the next turn waits until other runs of the key have settled. '
    'lease_expired: the worker did not renew the lease. worker_lost: the worker had left the bus and '
    'wrote nothing.';

ALTER TABLE runs
    ADD COLUMN traceparent text,
    ADD COLUMN released_by attempt_ending;
COMMENT ON COLUMN runs.traceparent IS
    'The W3C trace context that its spans belong to; NULL if none. Each attempt reads it here, because '
    'a job that is published again has no headers.';
COMMENT ON COLUMN runs.released_by IS
    'Why the newest attempt ended without ending the run; NULL while it holds the run.';

ALTER TABLE steps ADD COLUMN first_token_ms bigint;
COMMENT ON COLUMN steps.first_token_ms IS
    'Time from asking the model to its first output in this turn, in milliseconds; NULL for a call, and if '
    'there was none.';
COMMENT ON COLUMN steps.started_at IS
    'When the call was begun, NULL if that was not recorded; for a turn, the time of its record minus its '
    'duration.';
COMMENT ON COLUMN steps.duration_ms IS
    'How long it took, in milliseconds; for a turn, from asking the model to the end of the answer.';

CREATE TABLE attempts (
    tenant_id  uuid        NOT NULL,
    run_id     uuid        NOT NULL,
    worker_id  uuid,
    queued_at  timestamptz,
    claimed_at timestamptz,
    ended_at   timestamptz,
    attempt    integer     NOT NULL,
    ending     attempt_ending,
    PRIMARY KEY (tenant_id, run_id, attempt)
) WITH (fillfactor = 70);
COMMENT ON TABLE attempts IS
    'The attempts of runs that had several, or were parked: a run that its first attempt ends has no row '
    'here, because its own row says the same. Written by the trigger of runs.';
COMMENT ON COLUMN attempts.tenant_id IS 'The owner.';
COMMENT ON COLUMN attempts.run_id IS 'The run.';
COMMENT ON COLUMN attempts.worker_id IS 'The worker that claimed the run.';
COMMENT ON COLUMN attempts.queued_at IS
    'Since when the run was queued before this attempt; NULL if it was taken from a worker without a queue.';
COMMENT ON COLUMN attempts.claimed_at IS 'When it was claimed; NULL if that was not recorded.';
COMMENT ON COLUMN attempts.ended_at IS
    'When it ended without ending the run; NULL if it has not, or ended the run.';
COMMENT ON COLUMN attempts.attempt IS 'Its number.';
COMMENT ON COLUMN attempts.ending IS
    'Why it ended: see the domain attempt_ending. NULL with ended_at, or if the version that ended it did not '
    'say.';

ALTER TABLE attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON attempts TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON attempts TO baton_system USING (true) WITH CHECK (true);
GRANT SELECT ON attempts TO baton_app;
GRANT SELECT, INSERT, UPDATE ON attempts TO baton_system;

-- A trigger, so that attempts of workers of the version before are kept as well. A run that its first attempt
-- ends never meets the condition, and pays for no row.
CREATE FUNCTION keep_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.status = 'running' THEN
        INSERT INTO attempts (tenant_id, run_id, attempt, worker_id, queued_at, claimed_at, ended_at, ending)
        VALUES (OLD.tenant_id, OLD.id, OLD.attempt, OLD.worker_id, OLD.queued_at,
                CASE WHEN OLD.attempt = 1 THEN OLD.started_at END, clock_timestamp(),
                CASE WHEN NEW.attempt <> OLD.attempt THEN 'lease_expired' ELSE NEW.released_by END)
        ON CONFLICT (tenant_id, run_id, attempt)
        DO UPDATE SET ended_at = excluded.ended_at, ending = excluded.ending;
    END IF;
    IF NEW.status = 'running' THEN
        INSERT INTO attempts (tenant_id, run_id, attempt, worker_id, queued_at, claimed_at)
        VALUES (NEW.tenant_id, NEW.id, NEW.attempt, NEW.worker_id,
                CASE WHEN OLD.status = 'queued' THEN OLD.queued_at END, clock_timestamp());
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION keep_attempt() IS
    'Keeps what the row of a run is about to forget: the attempt that ends, and the one that begins.';
CREATE TRIGGER attempts AFTER UPDATE OF status ON runs
    FOR EACH ROW WHEN (
        (OLD.status = 'running'
         AND (NEW.status IN ('queued', 'awaiting_approval') OR NEW.attempt <> OLD.attempt))
        OR (NEW.status = 'running' AND NEW.attempt <> OLD.attempt AND OLD.attempt > 0))
    EXECUTE FUNCTION keep_attempt();
