-- Messages that clients send to a run while it works. An accepted message waits in run_inputs. A
-- commit of the run takes all that wait, each as a step with its message in the run's transcript.
-- Processes of the version before accept none and take none: theirs wait until the run ends.

ALTER DOMAIN step_kind DROP CONSTRAINT step_kind_known;
ALTER DOMAIN step_kind ADD CONSTRAINT step_kind_known CHECK (VALUE IN (
    'turn',               -- one answer of the model
    'call',               -- one call of a server-side tool
    'input'               -- a message that a client sent to the run while it worked
)) NOT VALID;
COMMENT ON DOMAIN step_kind IS
    'turn: one answer of the model. call: one call of a server-side tool. input: a message that a '
    'client sent to the run while it worked.';

COMMENT ON COLUMN steps.call_id IS
    'The call''s id, as the model gave it; for an input, the id of its message; NULL for a turn.';

ALTER TABLE runs
    ADD COLUMN inputs         integer NOT NULL DEFAULT 0,
    ADD COLUMN waiting_inputs integer NOT NULL DEFAULT 0,
    ADD COLUMN inputs_step    integer;
COMMENT ON COLUMN runs.inputs IS 'The number of messages that it was sent while it worked.';
COMMENT ON COLUMN runs.waiting_inputs IS
    'The number of those that wait. It changes with the row that it counts, under the lock of this '
    'row, so that an end of the run sees every message accepted before it.';
COMMENT ON COLUMN runs.inputs_step IS
    'The step from which on the last commit that took messages recorded them; 0 if they joined the '
    'input of a run that had not begun; NULL before. A write of another value takes those that wait.';

CREATE TABLE run_inputs (
    tenant_id  uuid        NOT NULL,
    run_id     uuid        NOT NULL,
    id         uuid        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    position   integer     NOT NULL CHECK (position >= 1),
    step       integer,
    created_by text,
    message    json        NOT NULL,
    PRIMARY KEY (tenant_id, run_id, position),
    CONSTRAINT run_inputs_id UNIQUE (tenant_id, id)
);
COMMENT ON TABLE run_inputs IS
    'Messages that clients sent to runs while they worked. One without a step waits, or is handed '
    'back if its run has ended. Written only by a statement that has locked the row of the run.';
COMMENT ON COLUMN run_inputs.tenant_id IS 'The owner.';
COMMENT ON COLUMN run_inputs.run_id IS 'The run that it was sent to.';
COMMENT ON COLUMN run_inputs.id IS 'UUIDv7, drawn by the server or the client.';
COMMENT ON COLUMN run_inputs.created_at IS 'When it was accepted.';
COMMENT ON COLUMN run_inputs.position IS
    'Its place among the messages sent to the run, rising from 1; that of a withdrawn one stays free.';
COMMENT ON COLUMN run_inputs.step IS
    'The step that it became; 0 if it joined the input of a run that had not begun; NULL before.';
COMMENT ON COLUMN run_inputs.created_by IS 'The actor that sent it, as the audit log names actors.';
COMMENT ON COLUMN run_inputs.message IS
    'The message, an OpenAI chat message. json and not jsonb, because it goes to the model as it came.';

ALTER TABLE run_inputs ENABLE ROW LEVEL SECURITY;
ALTER TABLE run_inputs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON run_inputs TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON run_inputs TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, DELETE ON run_inputs TO baton_app;
GRANT UPDATE (inputs, waiting_inputs) ON runs TO baton_app;
GRANT SELECT, UPDATE (step), DELETE ON run_inputs TO baton_system;

CREATE FUNCTION take_inputs() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    taken integer;
BEGIN
    -- Each statement here has a snapshot of its own, and the row of the run is locked: a message is
    -- seen if it was accepted before, and waits for the next commit otherwise.
    WITH waiting AS MATERIALIZED (
        SELECT position, id, message, row_number() OVER (ORDER BY position)::integer AS place
        FROM run_inputs
        WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id AND step IS NULL
    ), noted AS (
        UPDATE run_inputs SET step = NEW.inputs_step + waiting.place - 1
        FROM waiting
        WHERE run_inputs.tenant_id = NEW.tenant_id AND run_inputs.run_id = NEW.id
          AND run_inputs.position = waiting.position
    ), recorded AS (
        INSERT INTO steps (tenant_id, run_id, step, attempt, kind, state, call_id, last_event_id,
                           finished_at)
        SELECT NEW.tenant_id, NEW.id, NEW.inputs_step + waiting.place - 1, NEW.attempt, 'input',
               'finished', waiting.id::text, NEW.last_event_id + waiting.place, clock_timestamp()
        FROM waiting
    )
    INSERT INTO messages (tenant_id, run_id, step, thread_id, message)
    SELECT NEW.tenant_id, NEW.id, NEW.inputs_step + waiting.place - 1, NEW.thread_id, waiting.message
    FROM waiting;
    GET DIAGNOSTICS taken = ROW_COUNT;
    NEW.waiting_inputs := 0;
    NEW.last_event_id := NEW.last_event_id + taken;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION take_inputs() IS
    'Records the waiting messages of a run as steps, from inputs_step on, with the ids of the events '
    'that show them: those after the last event of the commit.';
CREATE TRIGGER take_inputs BEFORE UPDATE OF inputs_step ON runs FOR EACH ROW
    WHEN (NEW.inputs_step > 0 AND NEW.inputs_step IS DISTINCT FROM OLD.inputs_step)
    EXECUTE FUNCTION take_inputs();

CREATE FUNCTION begin_with_inputs() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    waiting text;
BEGIN
    WITH joined AS (
        UPDATE run_inputs SET step = 0
        WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id AND step IS NULL
        RETURNING position, message
    )
    SELECT string_agg(message::text, ',' ORDER BY position) INTO waiting FROM joined;
    NEW.waiting_inputs := 0;
    NEW.inputs_step := 0;
    IF waiting IS NOT NULL THEN
        NEW.spec := (
            SELECT json_object_agg(key, CASE key
                WHEN 'messages' THEN
                    (regexp_replace(value::text, '\]\s*$', ',') || waiting || ']')::json
                ELSE value END)
            FROM json_each(NEW.spec));
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION begin_with_inputs() IS
    'Puts the messages that a run was sent before its first claim behind its input.';
-- By its name it comes after begin_on_thread, which puts the messages of the thread before both.
CREATE TRIGGER begin_with_inputs BEFORE UPDATE OF started_at ON runs FOR EACH ROW
    WHEN (OLD.started_at IS NULL AND NEW.started_at IS NOT NULL AND NEW.waiting_inputs > 0)
    EXECUTE FUNCTION begin_with_inputs();
