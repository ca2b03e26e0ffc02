-- The limit on a tenant's waiting runs holds exactly, also for submissions that race each other.
CREATE FUNCTION has_queue_place(tenant uuid, queue_limit bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET lock_timeout = '5s'
AS $$
DECLARE
    -- Submissions that are not committed yet and that no snapshot counts: each has a connection.
    spare   CONSTANT bigint := queue_limit - current_setting('max_connections')::bigint;
    place   CONSTANT bigint := hashtextextended(tenant::text, 100);
    waiting bigint;
BEGIN
    -- Each statement in here has a snapshot of its own, taken after the lock before it.
    IF spare > 0 THEN
        BEGIN
            PERFORM pg_advisory_xact_lock_shared(place);
            SELECT count(*) INTO waiting FROM (
                SELECT FROM runs WHERE tenant_id = tenant AND status = 'queued' LIMIT queue_limit
            ) AS queued;
            IF waiting < spare THEN
                RETURN true;
            END IF;
            -- Gives the shared lock back: two that hold it could never both get the exclusive one.
            RAISE SQLSTATE 'BT001';
        EXCEPTION WHEN SQLSTATE 'BT001' THEN
            NULL;
        END;
    ELSE
        SELECT count(*) INTO waiting FROM (
            SELECT FROM runs WHERE tenant_id = tenant AND status = 'queued' LIMIT queue_limit
        ) AS queued;
    END IF;
    IF waiting >= queue_limit THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(place);
    SELECT count(*) INTO waiting FROM (
        SELECT FROM runs WHERE tenant_id = tenant AND status = 'queued' LIMIT queue_limit
    ) AS queued;
    RETURN waiting < queue_limit;
END
$$;
COMMENT ON FUNCTION has_queue_place(uuid, bigint) IS
    'Says whether fewer runs of a tenant wait than the limit, and keeps that true until the transaction '
    'ends. Far from the limit submissions share an advisory lock; within max_connections of it they '
    'take it one after the other, because those in flight could otherwise exceed the limit together.';
