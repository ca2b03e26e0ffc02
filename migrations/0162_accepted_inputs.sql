-- The event input.accepted. The holder of a run shows it when it hears of a message that waits, and
-- notes the event's id. A commit that takes a message whose acceptance was not shown yet records ids for
-- two events: input.accepted and input.applied. Processes of the version before write inputs_step, show
-- no acceptance, and are given one id for each message, as before.

ALTER TABLE run_inputs ADD COLUMN accepted_event_id bigint;
COMMENT ON COLUMN run_inputs.accepted_event_id IS
    'The event that shows its acceptance. NULL before, and again after a claim that withdraws it.';
GRANT UPDATE (accepted_event_id) ON run_inputs TO baton_system;

ALTER TABLE runs ADD COLUMN inputs_shown_step integer;
COMMENT ON COLUMN runs.inputs_shown_step IS
    'As inputs_step, for holders that show the acceptance of messages: a write of another value takes '
    'those that wait. NULL before.';

CREATE FUNCTION take_shown_inputs() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last_event bigint;
BEGIN
    -- As in take_inputs, each statement has a snapshot of its own, and the row of the run is locked.
    WITH waiting AS MATERIALIZED (
        SELECT position, id, message, is_new,
               row_number() OVER (ORDER BY position)::integer AS place,
               NEW.last_event_id
               + sum(CASE WHEN is_new THEN 2 ELSE 1 END) OVER (ORDER BY position) AS applied
        FROM (
            SELECT position, id, message, accepted_event_id IS NULL AS is_new
            FROM run_inputs
            WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id AND step IS NULL
        ) AS unordered
    ), noted AS (
        UPDATE run_inputs SET
            step = NEW.inputs_shown_step + waiting.place - 1,
            accepted_event_id = CASE WHEN is_new THEN applied - 1 ELSE accepted_event_id END
        FROM waiting
        WHERE run_inputs.tenant_id = NEW.tenant_id AND run_inputs.run_id = NEW.id
          AND run_inputs.position = waiting.position
    ), recorded AS (
        INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, call_id, last_event_id,
                           finished_at)
        SELECT NEW.tenant_id, NEW.id, NEW.inputs_shown_step + waiting.place - 1, NEW.attempt,
               'input', 'finished', waiting.id::text, waiting.applied, clock_timestamp()
        FROM waiting
    ), said AS (
        INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
        SELECT NEW.tenant_id, NEW.id, NEW.inputs_shown_step + waiting.place - 1, NEW.thread_id,
               waiting.message
        FROM waiting
    )
    SELECT max(applied) INTO last_event FROM waiting;
    NEW.waiting_inputs := 0;
    NEW.last_event_id := coalesce(last_event, NEW.last_event_id);
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION take_shown_inputs() IS
    'Records the waiting messages of a run as steps, from inputs_shown_step on, with the ids of the '
    'events that show them: those after the last event of the commit.';
CREATE TRIGGER take_shown_inputs BEFORE UPDATE OF inputs_shown_step ON runs FOR EACH ROW
    WHEN (NEW.inputs_shown_step > 0
          AND NEW.inputs_shown_step IS DISTINCT FROM OLD.inputs_shown_step)
    EXECUTE FUNCTION take_shown_inputs();

-- The first event of an attempt withdraws those of earlier attempts after the last recorded one.
CREATE FUNCTION forget_withdrawn_inputs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE run_inputs SET accepted_event_id = NULL
    WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id AND step IS NULL
      AND accepted_event_id > NEW.last_event_id;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION forget_withdrawn_inputs() IS
    'Forgets the events that show the acceptance of waiting messages, if the new attempt withdraws them.';
CREATE TRIGGER forget_withdrawn_inputs BEFORE UPDATE OF attempt ON runs FOR EACH ROW
    WHEN (NEW.attempt > OLD.attempt AND NEW.status = 'running' AND NEW.waiting_inputs > 0)
    EXECUTE FUNCTION forget_withdrawn_inputs();
