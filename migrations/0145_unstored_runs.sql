-- Runs that are removed after their end: responses with `"store": false`. A process of the version
-- before accepts none, and its scheduler leaves them.

ALTER TABLE runs ADD COLUMN stored boolean NOT NULL DEFAULT true;
COMMENT ON COLUMN runs.stored IS
    'Whether it is kept after its end; if not, the scheduler removes it soon afterwards.';
CREATE INDEX runs_unstored ON runs (finished_at) WHERE NOT stored;
GRANT UPDATE (stored) ON runs TO baton_app;
