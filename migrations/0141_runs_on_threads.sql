-- Runs on threads. A run begins with the messages of its thread, and its own are appended when it
-- ends. Both happen in triggers, so that they hold for every way by which a run begins or ends, for
-- processes of the version before too, and only once.

ALTER TABLE runs ADD COLUMN thread_messages integer;
COMMENT ON COLUMN runs.thread_messages IS
    'The number of messages of its thread with which the messages in spec begin; set by the first '
    'claim. NULL before, and if it has no thread.';

CREATE FUNCTION new_message_id() RETURNS uuid LANGUAGE sql VOLATILE
RETURN (
    SELECT encode(set_byte(id, 6, (get_byte(id, 6) & 15) | 112), 'hex')::uuid
    FROM (SELECT overlay(
        uuid_send(gen_random_uuid())
        PLACING substring(
            int8send(floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint) FROM 3)
        FROM 1 FOR 6) AS id) AS random
);
COMMENT ON FUNCTION new_message_id() IS 'Makes a UUIDv7 of now.';

CREATE FUNCTION begin_on_thread() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    earlier text;
BEGIN
    -- A run that has begun keeps its thread until it ends, also while it is queued again. Runs that
    -- have not begun go in the order of their ids.
    IF EXISTS (
        SELECT FROM runs
        WHERE tenant_id = NEW.tenant_id AND thread_id = NEW.thread_id AND id <> NEW.id
          AND finished_at IS NULL AND (started_at IS NOT NULL OR id < NEW.id)
    ) THEN
        RAISE unique_violation USING
            MESSAGE = 'another run of the thread goes first',
            CONSTRAINT = 'runs_thread_active';
    END IF;
    SELECT count(*), string_agg(message::text, ',' ORDER BY position)
    INTO NEW.thread_messages, earlier
    FROM thread_messages
    WHERE tenant_id = NEW.tenant_id AND thread_id = NEW.thread_id;
    IF earlier IS NOT NULL THEN
        NEW.spec := (
            SELECT json_object_agg(key, CASE key
                WHEN 'messages' THEN
                    ('[' || earlier || ',' || substr(btrim(value::text), 2))::json
                ELSE value END)
            FROM json_each(NEW.spec));
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION begin_on_thread() IS
    'Refuses the first claim of a run while another one of its thread goes first, and puts the '
    'messages of the thread before those of the run.';
CREATE TRIGGER begin_on_thread BEFORE UPDATE OF started_at ON runs FOR EACH ROW
    WHEN (NEW.thread_id IS NOT NULL AND OLD.started_at IS NULL AND NEW.started_at IS NOT NULL)
    EXECUTE FUNCTION begin_on_thread();

CREATE FUNCTION end_on_thread() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    open_turn integer;
BEGIN
    -- No model takes a turn with a call that has no result.
    SELECT max(turn.step) INTO open_turn
    FROM steps AS turn
    WHERE turn.tenant_id = NEW.tenant_id AND turn.run_id = NEW.id AND turn.kind = 'turn'
      AND turn.step < (
          SELECT min(call.step) FROM steps AS call
          WHERE call.tenant_id = NEW.tenant_id AND call.run_id = NEW.id
            AND call.kind = 'call' AND call.state <> 'finished');
    INSERT INTO thread_messages (tenant_id, thread_id, run_id, position, id, message)
    SELECT NEW.tenant_id, NEW.thread_id, NEW.id,
           (SELECT coalesce(max(position), 0) FROM thread_messages
            WHERE tenant_id = NEW.tenant_id AND thread_id = NEW.thread_id)
           + row_number() OVER (ORDER BY said.part, said.place),
           new_message_id(), said.message
    FROM (
        SELECT 1 AS part, given.place, given.message
        FROM json_array_elements(NEW.spec -> 'messages') WITH ORDINALITY AS given (message, place)
        WHERE given.place > NEW.thread_messages
        UNION ALL
        SELECT 2, step, message FROM messages
        WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id
          AND (open_turn IS NULL OR step < open_turn)
    ) AS said;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION end_on_thread() IS
    'Appends the messages of a run that ends to its thread: those that it was sent, and those that it '
    'produced, without a turn whose calls have no result.';
CREATE TRIGGER end_on_thread AFTER UPDATE ON runs FOR EACH ROW
    WHEN (NEW.thread_messages IS NOT NULL AND OLD.finished_at IS NULL
          AND NEW.finished_at IS NOT NULL)
    EXECUTE FUNCTION end_on_thread();

GRANT INSERT ON thread_messages TO baton_system;
