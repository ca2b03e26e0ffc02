CREATE TABLE stream_tickets (
    hash           bytea       NOT NULL PRIMARY KEY CHECK (length(hash) = 32),
    tenant_id      uuid        NOT NULL REFERENCES tenants (id),
    run_id         uuid        NOT NULL,
    api_key_id     uuid,
    session_id     uuid,
    issuer_subject text        CHECK (length(issuer_subject) BETWEEN 1 AND 1000),
    issuer_role    member_role,
    issued_until   timestamptz,
    expires_at     timestamptz NOT NULL,
    CONSTRAINT stream_tickets_one_maker
        CHECK (num_nonnulls(api_key_id, session_id, issuer_subject) = 1),
    CONSTRAINT stream_tickets_issuer
        CHECK ((issuer_subject IS NULL) = (issuer_role IS NULL)
           AND (issuer_subject IS NULL) = (issued_until IS NULL))
);
CREATE INDEX stream_tickets_expiry ON stream_tickets (tenant_id, expires_at);
COMMENT ON TABLE stream_tickets IS
    'Tickets that open the event stream of one run within a minute, for clients that cannot send a '
    'header. The credential that made a ticket is checked again when the ticket is used.';
COMMENT ON COLUMN stream_tickets.hash IS 'SHA-256 of the whole ticket as it is sent.';
COMMENT ON COLUMN stream_tickets.tenant_id IS 'The owner of the run.';
COMMENT ON COLUMN stream_tickets.run_id IS 'The only run whose events it opens.';
COMMENT ON COLUMN stream_tickets.api_key_id IS 'The key that made it; NULL otherwise.';
COMMENT ON COLUMN stream_tickets.session_id IS 'The session that made it; NULL otherwise.';
COMMENT ON COLUMN stream_tickets.issuer_subject IS
    'The subject of another issuer''s token that made it; NULL otherwise.';
COMMENT ON COLUMN stream_tickets.issuer_role IS 'The role of that subject; NULL otherwise.';
COMMENT ON COLUMN stream_tickets.issued_until IS 'The end of that token; NULL otherwise.';
COMMENT ON COLUMN stream_tickets.expires_at IS 'From when on it opens nothing.';

ALTER TABLE stream_tickets ENABLE ROW LEVEL SECURITY;
ALTER TABLE stream_tickets FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON stream_tickets TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON stream_tickets TO baton_system USING (true);

GRANT SELECT, INSERT, DELETE ON stream_tickets TO baton_app;
GRANT SELECT ON stream_tickets TO baton_system;
