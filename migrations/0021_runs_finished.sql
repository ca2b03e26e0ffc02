-- Runs that ended lately, for those whose last event the broker may have lost. A block range index:
-- rows end about in the order in which they lie, it is written to once for some hundreds of them,
-- and it is next to nothing beside a tree with an entry for every run.
CREATE INDEX runs_finished ON runs USING brin (finished_at) WITH (autosummarize = on);
