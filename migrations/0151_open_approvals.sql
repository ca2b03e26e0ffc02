-- The questions that runs of a tenant wait for are listed.
CREATE INDEX approvals_open_of_tenant ON approvals (tenant_id, id) WHERE decision IS NULL;
