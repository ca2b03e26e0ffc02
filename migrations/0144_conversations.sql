-- Responses on threads, and the deletion of single items of conversations.

-- `instructions` of a response are its first message. They precede the thread's messages, and the
-- thread does not keep them.
CREATE OR REPLACE FUNCTION begin_on_thread() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    earlier text;
    instructed boolean := NEW.spec -> 'response' ->> 'instructions' IS NOT NULL;
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
            SELECT json_object_agg(key, CASE
                WHEN key <> 'messages' THEN value
                WHEN instructed THEN (
                    SELECT ('[' || string_agg(
                        message::text || CASE place WHEN 1 THEN ',' || earlier ELSE '' END,
                        ',' ORDER BY place) || ']')::json
                    FROM json_array_elements(value) WITH ORDINALITY AS given (message, place))
                ELSE ('[' || earlier || ',' || substr(btrim(value::text), 2))::json END)
            FROM json_each(NEW.spec));
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION begin_on_thread() IS
    'Refuses the first claim of a run while another one of its thread goes first, and puts the '
    'messages of the thread before those of the run, but after the instructions of a response.';

CREATE OR REPLACE FUNCTION end_on_thread() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    open_turn integer;
    kept_out integer := NEW.thread_messages;
BEGIN
    IF NEW.spec -> 'response' ->> 'instructions' IS NOT NULL THEN
        kept_out := kept_out + 1;
    END IF;
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
        WHERE given.place > kept_out
        UNION ALL
        SELECT 2, step, message FROM messages
        WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id
          AND (open_turn IS NULL OR step < open_turn)
    ) AS said;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION end_on_thread() IS
    'Appends the messages of a run that ends to its thread: those that it was sent, without the '
    'instructions of a response, and those that it produced, without a turn whose calls have no result.';

COMMENT ON COLUMN runs.thread_messages IS
    'The number of messages of its thread that are part of the messages in spec: at their beginning, '
    'or after the instructions of a response. Set by the first claim; NULL before, and if it has no '
    'thread.';

-- A client deletes an item of a conversation, which may be a part of a message.
GRANT UPDATE (message), DELETE ON thread_messages TO baton_app;
