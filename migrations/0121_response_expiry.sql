-- Responses that are kept for a time that an operator sets for their tenant. The end of that time is set
-- when a response is accepted. A process of the version before sets none, and its scheduler removes none.

ALTER TABLE tenants ADD COLUMN responses_kept_s integer CHECK (responses_kept_s > 0);
COMMENT ON COLUMN tenants.responses_kept_s IS
    'For how long a response is kept after it was accepted, in seconds; NULL for ever. It holds for '
    'responses that are accepted later.';
GRANT UPDATE (responses_kept_s) ON tenants TO baton_system;

ALTER TABLE runs ADD COLUMN expires_at timestamptz;
COMMENT ON COLUMN runs.expires_at IS
    'From when on it is not found, if it has ended by then; the scheduler then removes it. NULL if never.';
CREATE INDEX runs_expiring ON runs (expires_at) WHERE expires_at IS NOT NULL;
