-- Agents of the operator's files, which belong to one tenant or to all.

CREATE TABLE file_agents (
    id         uuid        NOT NULL PRIMARY KEY,
    tenant_id  uuid        REFERENCES tenants (id),
    name       text        NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
    version    integer     NOT NULL CHECK (version >= 1),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    removed_at timestamptz,
    CONSTRAINT file_agents_name UNIQUE NULLS NOT DISTINCT (tenant_id, name)
);
COMMENT ON TABLE file_agents IS
    'Agents of the files that agents.path names. The servers write them when they load the files; no '
    'request changes them. A tenant that has made an agent of the same name gets its own.';
COMMENT ON COLUMN file_agents.id IS 'UUIDv7.';
COMMENT ON COLUMN file_agents.tenant_id IS 'The only tenant that has it; NULL if all tenants have it.';
COMMENT ON COLUMN file_agents.name IS 'The name by which requests select it.';
COMMENT ON COLUMN file_agents.version IS 'The version that the files have: the newest.';
COMMENT ON COLUMN file_agents.created_at IS 'When it was first loaded.';
COMMENT ON COLUMN file_agents.removed_at IS
    'When a load no longer found it in the files; NULL while it is there. The row stays, so that a number '
    'of a version never names two definitions.';

CREATE TABLE file_agent_versions (
    agent_id   uuid        NOT NULL REFERENCES file_agents (id),
    tenant_id  uuid,
    version    integer     NOT NULL CHECK (version >= 1),
    definition json        NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (agent_id, version)
);
COMMENT ON TABLE file_agent_versions IS
    'The definitions of the agents of files. A changed file adds a version; none is ever changed.';
COMMENT ON COLUMN file_agent_versions.agent_id IS 'The agent.';
COMMENT ON COLUMN file_agent_versions.tenant_id IS 'The agent''s tenant; NULL if all tenants have it.';
COMMENT ON COLUMN file_agent_versions.version IS 'Dense from 1 within the agent.';
COMMENT ON COLUMN file_agent_versions.definition IS
    'The whole definition: instructions, model, tools, parameters, limits.';
COMMENT ON COLUMN file_agent_versions.created_at IS 'When it was loaded.';

ALTER TABLE file_agents ENABLE ROW LEVEL SECURITY;
ALTER TABLE file_agents FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON file_agents FOR SELECT TO baton_app
    USING (tenant_id IS NULL OR tenant_id = current_tenant());
CREATE POLICY system ON file_agents TO baton_system USING (true) WITH CHECK (true);
ALTER TABLE file_agent_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE file_agent_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON file_agent_versions FOR SELECT TO baton_app
    USING (tenant_id IS NULL OR tenant_id = current_tenant());
CREATE POLICY system ON file_agent_versions TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT ON file_agents, file_agent_versions TO baton_app;
GRANT SELECT, INSERT ON file_agents, file_agent_versions TO baton_system;
GRANT UPDATE (version, removed_at) ON file_agents TO baton_system;

-- A load finds the tenants that have made agents of the same names.
CREATE POLICY system ON agents FOR SELECT TO baton_system USING (true);
GRANT SELECT (tenant_id, id, name) ON agents TO baton_system;
