-- A run that reaches a limit of its own may wait until a person raises that limit.

ALTER DOMAIN approval_reason DROP CONSTRAINT approval_reason_known;
ALTER DOMAIN approval_reason ADD CONSTRAINT approval_reason_known CHECK (VALUE IN (
    'outcome unknown',    -- begun, without a recorded result, of a tool that must not be called twice
    'approval required',  -- not begun, of a tool whose calls a person must approve
    'budget'              -- no call: the run has reached a limit of its own
));
COMMENT ON DOMAIN approval_reason IS
    'outcome unknown: the call was begun, its worker was lost before the result was recorded, and '
    'its tool cannot recognise a repetition. approval required: the operator or the agent requires a '
    'person''s yes before the tool is called, and the call has not begun. budget: the run has reached a '
    'limit of its own, and waits for a higher one.';

ALTER DOMAIN approval_decision DROP CONSTRAINT approval_decision_known;
ALTER DOMAIN approval_decision ADD CONSTRAINT approval_decision_known CHECK (VALUE IN (
    'retry',              -- the call is made again, once
    'result',             -- it happened: the model is told this result
    'fail',               -- it is given up: the model is told that it failed
    'approve',            -- the call is made
    'reject',             -- the call is not made: the model is told so, with the reason
    'raise',              -- the run goes on with higher limits
    'stop'                -- the run ends at its limit
));
COMMENT ON DOMAIN approval_decision IS
    'Of an unknown outcome: retry: the call is made again, once. result: it happened, and the model is '
    'told this result. fail: it is given up, and the model is told that it failed. Of a call that '
    'requires approval: approve: the call is made. reject: it is not made, and the model is told so. Of a '
    'run at its limit: raise: it goes on with higher limits. stop: it ends.';

ALTER TABLE approvals ADD COLUMN reached json;
COMMENT ON COLUMN approvals.reached IS
    'The limit that the run has reached, with its limits and its consumption; NULL unless the reason is '
    'budget.';
COMMENT ON COLUMN approvals.step IS 'The call; of a budget, the step that the run waits before.';
COMMENT ON COLUMN approvals.answer IS
    'What the model is told, for result, fail and reject; the JSON of the raised limits, for raise; else '
    'NULL.';
