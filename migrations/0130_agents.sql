CREATE TABLE agents (
    tenant_id  uuid        NOT NULL REFERENCES tenants (id),
    id         uuid        NOT NULL,
    name       text        NOT NULL CHECK (name ~ '^[a-z][a-z0-9-]{0,62}$'),
    version    integer     NOT NULL CHECK (version >= 1),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, id),
    CONSTRAINT agents_name UNIQUE (tenant_id, name)
);
COMMENT ON TABLE agents IS
    'Agents that were made over the API: named configurations that runs are made from. A run keeps a '
    'copy of the version that it was made from.';
COMMENT ON COLUMN agents.tenant_id IS 'The owner.';
COMMENT ON COLUMN agents.id IS 'UUIDv7.';
COMMENT ON COLUMN agents.name IS 'The name by which requests select it. It never changes.';
COMMENT ON COLUMN agents.version IS 'The version that requests get if they name none: the newest.';
COMMENT ON COLUMN agents.created_at IS 'When it was made.';

CREATE TABLE agent_versions (
    tenant_id     uuid        NOT NULL,
    agent_id      uuid        NOT NULL,
    version       integer     NOT NULL CHECK (version >= 1),
    definition    json        NOT NULL,
    restored_from integer     CHECK (restored_from < version),
    created_by    text        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, agent_id, version),
    FOREIGN KEY (tenant_id, agent_id) REFERENCES agents (tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE agent_versions IS
    'The definitions of agents. A change adds a version; none is ever changed.';
COMMENT ON COLUMN agent_versions.tenant_id IS 'The owner.';
COMMENT ON COLUMN agent_versions.agent_id IS 'The agent.';
COMMENT ON COLUMN agent_versions.version IS 'Dense from 1 within the agent.';
COMMENT ON COLUMN agent_versions.definition IS
    'The whole definition: instructions, model, tools, parameters, limits.';
COMMENT ON COLUMN agent_versions.restored_from IS
    'The older version with the same definition, if this one was made by a roll back; NULL otherwise.';
COMMENT ON COLUMN agent_versions.created_by IS 'The actor that made it, as the audit log names actors.';
COMMENT ON COLUMN agent_versions.created_at IS 'When it was made.';

ALTER TABLE agents ENABLE ROW LEVEL SECURITY;
ALTER TABLE agents FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON agents TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE agent_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE agent_versions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON agent_versions TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());

GRANT SELECT, INSERT, DELETE ON agents TO baton_app;
GRANT UPDATE (version) ON agents TO baton_app;
GRANT SELECT, INSERT ON agent_versions TO baton_app;
