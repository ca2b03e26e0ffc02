-- The audit log in one part for each month, so that an operator can drop old months: `baton audit
-- prune`. Entries written so far, and until the end of this month, stay together in the first part.

ALTER TABLE audit_log RENAME TO audit_log_first;
DROP TRIGGER append_only ON audit_log_first;
DROP POLICY tenant ON audit_log_first;
DROP POLICY system ON audit_log_first;
REVOKE ALL ON audit_log_first FROM baton_app, baton_system;
ALTER TABLE audit_log_first DROP CONSTRAINT audit_log_pkey;
ALTER TABLE audit_log_first ADD PRIMARY KEY (id, at);
ALTER INDEX audit_log_tenant RENAME TO audit_log_first_tenant;

CREATE TABLE audit_log (
    id         uuid         NOT NULL,
    tenant_id  uuid,
    at         timestamptz  NOT NULL DEFAULT clock_timestamp(),
    actor_kind audit_actor  NOT NULL,
    actor      text,
    action     text         NOT NULL,
    target     text,
    result     audit_result NOT NULL,
    detail     text,
    ip         text,
    user_agent text,
    request_id text,
    PRIMARY KEY (id, at)
) PARTITION BY RANGE (at);
CREATE INDEX audit_log_tenant ON audit_log (tenant_id, id);
COMMENT ON TABLE audit_log IS
    'Records each act with its actor, its origin and its result, in one part for each month. Entries are '
    'only ever added: no role of the servers may change or remove one, and a trigger refuses it to '
    'everybody. The owner may drop a whole part.';
COMMENT ON COLUMN audit_log.id IS 'UUIDv7: the log is sorted by it.';
COMMENT ON COLUMN audit_log.tenant_id IS 'The tenant that it happened in; NULL if in none.';
COMMENT ON COLUMN audit_log.at IS 'The time, by which it belongs to a part.';
COMMENT ON COLUMN audit_log.actor_kind IS 'See the domain audit_actor.';
COMMENT ON COLUMN audit_log.actor IS
    'The actor''s id; if it was refused, the id that was claimed; NULL if unknown.';
COMMENT ON COLUMN audit_log.action IS 'A stable word such as key.created.';
COMMENT ON COLUMN audit_log.target IS 'The thing that it was done to; NULL if to nothing.';
COMMENT ON COLUMN audit_log.result IS 'See the domain audit_result.';
COMMENT ON COLUMN audit_log.detail IS 'More of it, such as the reason of a refusal; never a secret.';
COMMENT ON COLUMN audit_log.ip IS 'The address that it came from; NULL from the command line.';
COMMENT ON COLUMN audit_log.user_agent IS 'The name that the client called itself.';
COMMENT ON COLUMN audit_log.request_id IS 'The request''s id, as in logs.';
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_log TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON audit_log TO baton_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON audit_log TO baton_app, baton_system;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A part is reached through the log alone: it has no grants and no policies of its own.
CREATE FUNCTION guard_audit_part(part regclass, what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', part);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', part);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', part);
    EXECUTE format('COMMENT ON TABLE %s IS %L', part, what);
END
$$;
COMMENT ON FUNCTION guard_audit_part(regclass, text) IS
    'Has a part of the audit log take entries through the log only, and refuse whatever would change '
    'or remove one.';
REVOKE EXECUTE ON FUNCTION guard_audit_part(regclass, text) FROM PUBLIC;

DO $$
BEGIN
    PERFORM guard_audit_part('audit_log_first', 'Entries of the audit log from before it had parts.');
    EXECUTE format(
        'ALTER TABLE audit_log ATTACH PARTITION audit_log_first FOR VALUES FROM (MINVALUE) TO (%L)',
        (date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') + interval '1 month')
            AT TIME ZONE 'UTC');
END
$$;

CREATE FUNCTION make_default_audit_part() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT;
    PERFORM guard_audit_part('audit_log_default',
                             'Entries of the audit log of months that no part was made for.');
END
$$;
COMMENT ON FUNCTION make_default_audit_part() IS
    'Makes the part that takes what fits into no other, so that no entry is ever refused for its time.';
REVOKE EXECUTE ON FUNCTION make_default_audit_part() FROM PUBLIC;
DO $$ BEGIN PERFORM make_default_audit_part(); END $$;

CREATE FUNCTION make_audit_parts(at timestamptz, ahead integer) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
    SET lock_timeout = '3s'
AS $$
DECLARE
    month timestamptz := date_trunc('month', make_audit_parts.at, 'UTC');
    next  timestamptz;
    part  text;
BEGIN
    FOR n IN 0 .. least(ahead, 24) LOOP
        next := (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
        part := 'audit_log_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
        IF to_regclass('public.' || part) IS NULL THEN
            BEGIN
                EXECUTE format(
                    'CREATE TABLE public.%I PARTITION OF public.audit_log FOR VALUES FROM (%L) TO (%L)',
                    part, month, next);
                PERFORM guard_audit_part(('public.' || part)::regclass,
                    'Entries of the audit log of ' || to_char(month AT TIME ZONE 'UTC', 'YYYY-MM') || '.');
                RETURN NEXT part;
            EXCEPTION
                -- Another part has it, the default part has entries of it, or somebody was faster.
                WHEN invalid_object_definition OR check_violation OR duplicate_table THEN
                    NULL;
            END;
        END IF;
        month := next;
    END LOOP;
END
$$;
COMMENT ON FUNCTION make_audit_parts(timestamptz, integer) IS
    'Makes the parts of the audit log for the month of a time and so many after it, where they are '
    'missing; their names. A month whose entries are in the default part stays there.';
REVOKE EXECUTE ON FUNCTION make_audit_parts(timestamptz, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION make_audit_parts(timestamptz, integer) TO baton_system;
