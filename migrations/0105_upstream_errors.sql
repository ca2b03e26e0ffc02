-- A client acts on an upstream's own code, param and pause: they last as long as the run does.
ALTER TABLE runs ADD COLUMN error_upstream json;
COMMENT ON COLUMN runs.error_upstream IS
    'Of a run that the model server made fail: its own words for programs (code, param, retry_after_ms). NULL if it said none, or in any other run.';
