CREATE TABLE tenants (
    id         uuid        NOT NULL PRIMARY KEY,
    name       text        NOT NULL UNIQUE CHECK (name <> '' AND length(name) <= 200),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE tenants IS
    'Who owns keys, threads and runs. Every other table leads its primary key with the tenant. No '
    'foreign key of a busy table points here: each insert would lock the tenant''s one row.';
COMMENT ON COLUMN tenants.id IS 'UUIDv7; also the tenant''s part of every NATS subject.';
COMMENT ON COLUMN tenants.name IS 'What operators call it; unique.';
COMMENT ON COLUMN tenants.created_at IS 'When it was made.';

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants TO baton_app USING (id = current_tenant());
CREATE POLICY system ON tenants TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT ON tenants TO baton_app;
GRANT SELECT, INSERT ON tenants TO baton_system;
