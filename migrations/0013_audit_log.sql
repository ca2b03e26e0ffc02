CREATE DOMAIN audit_actor AS text CONSTRAINT audit_actor_known CHECK (VALUE IN (
    'user',               -- a person
    'api_key',            -- a machine
    'issuer',             -- somebody whom another issuer vouches for
    'operator',           -- whoever has the command line
    'nobody'              -- no credential, or a bad one
));
COMMENT ON DOMAIN audit_actor IS
    'user: a person. api_key: a machine. issuer: somebody whom another issuer vouches for. '
    'operator: whoever has the command line. nobody: no credential, or a bad one.';

CREATE DOMAIN audit_result AS text CONSTRAINT audit_result_known CHECK (VALUE IN (
    'done',               -- it happened
    'refused'             -- it was asked for and did not happen
));
COMMENT ON DOMAIN audit_result IS
    'done: it happened. refused: it was asked for and did not happen.';

CREATE TABLE audit_log (
    id         uuid         NOT NULL PRIMARY KEY,
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
    request_id text
);
CREATE INDEX audit_log_tenant ON audit_log (tenant_id, id);
COMMENT ON TABLE audit_log IS
    'Who did what, from where, with what result. Rows are only ever added: no role of the servers '
    'may change or remove one, and a trigger refuses it to everybody.';
COMMENT ON COLUMN audit_log.id IS 'UUIDv7: the log is sorted by it.';
COMMENT ON COLUMN audit_log.tenant_id IS 'The tenant that it happened in; NULL if in none.';
COMMENT ON COLUMN audit_log.at IS 'When.';
COMMENT ON COLUMN audit_log.actor_kind IS 'See the domain audit_actor.';
COMMENT ON COLUMN audit_log.actor IS 'The actor''s id; what was claimed to be one if it was refused; NULL if unknown.';
COMMENT ON COLUMN audit_log.action IS 'What, as a stable word such as key.created.';
COMMENT ON COLUMN audit_log.target IS 'What it was done to; NULL if to nothing.';
COMMENT ON COLUMN audit_log.result IS 'See the domain audit_result.';
COMMENT ON COLUMN audit_log.detail IS 'More of it, such as the reason of a refusal; never a secret.';
COMMENT ON COLUMN audit_log.ip IS 'The address that it came from; NULL from the command line.';
COMMENT ON COLUMN audit_log.user_agent IS 'What the client called itself.';
COMMENT ON COLUMN audit_log.request_id IS 'The request''s id, as in logs.';

ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_log TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON audit_log TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON audit_log TO baton_app, baton_system;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;
COMMENT ON FUNCTION refuse_change() IS 'Refuses whatever would change or remove rows.';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
