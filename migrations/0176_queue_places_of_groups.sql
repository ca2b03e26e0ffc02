-- Several runs of one tenant are accepted by one statement, and the limit holds exactly for them too.
CREATE FUNCTION queue_places(tenant uuid, queue_limit bigint) RETURNS bigint
    LANGUAGE plpgsql
    SET lock_timeout = '5s'
AS $$
DECLARE
    waiting bigint;
BEGIN
    -- The lock of has_queue_place, taken by one group alone. The count has a snapshot after it.
    PERFORM pg_advisory_xact_lock(hashtextextended(tenant::text, 100));
    SELECT count(*) INTO waiting FROM (
        SELECT FROM runs WHERE tenant_id = tenant AND status = 'queued' LIMIT queue_limit
    ) AS queued;
    RETURN queue_limit - waiting;
END
$$;
COMMENT ON FUNCTION queue_places(uuid, bigint) IS
    'Says how many more runs of a tenant may wait, and keeps that true until the transaction ends: no '
    'other submission of the tenant counts or commits meanwhile.';
