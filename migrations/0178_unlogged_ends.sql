-- Ends that no job leads to: a run that is cancelled or answered while nobody holds it has no job, or one that is
-- not published yet. If the process that ends it dies before it appends the last event, the scheduler appends it.
-- A process of the version before leaves the column at its default.

ALTER TABLE runs ADD COLUMN end_unlogged boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN runs.end_unlogged IS
    'Whether its log may lack the event of its end, because a process that had no job of it ended it.';
CREATE INDEX runs_end_unlogged ON runs (finished_at) WHERE end_unlogged;
GRANT UPDATE (end_unlogged) ON runs TO baton_app;
