-- A request for a response may answer the approval requests of a run that waits: the run ends as completed,
-- in the commit that accepts the run that goes on from it.

GRANT UPDATE (finish_reason) ON runs TO baton_app;
