CREATE DOMAIN member_role AS text CONSTRAINT member_role_known CHECK (VALUE IN (
    'viewer',             -- reads runs
    'member',             -- starts and cancels runs
    'admin',              -- makes keys, invites people
    'owner'               -- everything
));
COMMENT ON DOMAIN member_role IS
    'viewer: reads runs. member: starts and cancels runs. admin: makes keys, invites people, '
    'changes roles up to its own. owner: everything.';

CREATE TABLE users (
    id                  uuid        NOT NULL PRIMARY KEY,
    email               text        NOT NULL UNIQUE
        CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 254),
    name                text        CHECK (name <> '' AND length(name) <= 200),
    password_hash       text        NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    password_changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    disabled_at         timestamptz
);
COMMENT ON TABLE users IS
    'People. They belong to no tenant: memberships say where they act. Only the system role '
    'reaches this table.';
COMMENT ON COLUMN users.id IS 'UUIDv7.';
COMMENT ON COLUMN users.email IS 'What they sign in with, in lower case; unique.';
COMMENT ON COLUMN users.name IS 'What they are called; NULL if they did not say.';
COMMENT ON COLUMN users.password_hash IS 'argon2id in PHC form, parameters and salt included.';
COMMENT ON COLUMN users.created_at IS 'When they registered.';
COMMENT ON COLUMN users.password_changed_at IS 'When the password was last set.';
COMMENT ON COLUMN users.disabled_at IS 'Since when an operator keeps them out; NULL if none does.';

ALTER TABLE users ENABLE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
CREATE POLICY system ON users TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON users TO baton_system;
GRANT UPDATE (password_hash, password_changed_at, disabled_at) ON users TO baton_system;

CREATE TABLE memberships (
    tenant_id  uuid        NOT NULL REFERENCES tenants (id),
    user_id    uuid        NOT NULL REFERENCES users (id),
    role       member_role NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, user_id)
);
CREATE INDEX memberships_user ON memberships (user_id);
COMMENT ON TABLE memberships IS 'Who may act in a tenant, and as what.';
COMMENT ON COLUMN memberships.tenant_id IS 'The tenant.';
COMMENT ON COLUMN memberships.user_id IS 'The person.';
COMMENT ON COLUMN memberships.role IS 'See the domain member_role.';
COMMENT ON COLUMN memberships.created_at IS 'When they joined.';

ALTER TABLE memberships ENABLE ROW LEVEL SECURITY;
ALTER TABLE memberships FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON memberships TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON memberships TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, DELETE ON memberships TO baton_app;
GRANT UPDATE (role) ON memberships TO baton_app;
GRANT SELECT, INSERT ON memberships TO baton_system;
