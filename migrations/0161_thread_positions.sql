-- The position of a deleted message of a thread is not given to a later one: a client that reads a
-- thread from a cursor on would miss it.

ALTER TABLE threads ADD COLUMN deleted_position bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN threads.deleted_position IS
    'The highest position of a deleted message of the thread; 0 if there is none.';
GRANT UPDATE (deleted_position) ON threads TO baton_app;

CREATE FUNCTION last_thread_position(tenant uuid, thread uuid) RETURNS bigint LANGUAGE sql STABLE
RETURN (
    SELECT greatest(
        (SELECT max(position) FROM thread_messages WHERE tenant_id = tenant AND thread_id = thread),
        (SELECT deleted_position FROM threads WHERE tenant_id = tenant AND id = thread),
        0)
);
COMMENT ON FUNCTION last_thread_position(uuid, uuid) IS
    'The position of the last message that a thread has or had; 0 if it never had one.';

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
           last_thread_position(NEW.tenant_id, NEW.thread_id)
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
