-- Runs of given calls: a request names the calls of server-side tools, and no model is asked. Their caller acts
-- on the reason of a failure, which the model only reads as a text.

CREATE DOMAIN call_failure AS text CONSTRAINT call_failure_known CHECK (VALUE IN (
    'unknown_tool',       -- there is no such tool
    'invalid_arguments',  -- the arguments do not fit the tool
    'failed',             -- the tool reported why
    'timed_out',          -- it did not end within its time limit
    'panicked'            -- it crashed
));
COMMENT ON DOMAIN call_failure IS
    'unknown_tool: there is no such tool. invalid_arguments: the arguments do not fit the tool. failed: the '
    'tool reported why. timed_out: it did not end within its time limit. panicked: it crashed.';

ALTER TABLE steps ADD COLUMN failure call_failure;
COMMENT ON COLUMN steps.failure IS
    'Why the call has no result; NULL for a turn, for a call that succeeded, if a person decided its result, '
    'and if the version that recorded it did not say.';
COMMENT ON COLUMN runs.model IS 'The upstream''s name of the model; empty for a run of given calls.';
COMMENT ON COLUMN runs.agent_name IS 'The agent that was resolved; empty for a run of given calls.';
