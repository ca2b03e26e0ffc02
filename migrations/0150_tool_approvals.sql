-- Calls that a person must approve before the tool is called.

ALTER DOMAIN approval_reason DROP CONSTRAINT approval_reason_known;
ALTER DOMAIN approval_reason ADD CONSTRAINT approval_reason_known CHECK (VALUE IN (
    'outcome unknown',    -- begun, without a recorded result, of a tool that must not be called twice
    'approval required'   -- not begun, of a tool whose calls a person must approve
));
COMMENT ON DOMAIN approval_reason IS
    'outcome unknown: the call was begun, its worker was lost before the result was recorded, and '
    'its tool cannot recognise a repetition. approval required: the operator or the agent requires a '
    'person''s yes before the tool is called, and the call has not begun.';

ALTER DOMAIN approval_decision DROP CONSTRAINT approval_decision_known;
ALTER DOMAIN approval_decision ADD CONSTRAINT approval_decision_known CHECK (VALUE IN (
    'retry',              -- the call is made again, once
    'result',             -- it happened: the model is told this result
    'fail',               -- it is given up: the model is told that it failed
    'approve',            -- the call is made
    'reject'              -- the call is not made: the model is told so, with the reason
));
COMMENT ON DOMAIN approval_decision IS
    'Of an unknown outcome: retry: the call is made again, once. result: it happened, and the model is '
    'told this result. fail: it is given up, and the model is told that it failed. Of a call that '
    'requires approval: approve: the call is made. reject: it is not made, and the model is told so.';

ALTER TABLE approvals ADD COLUMN parameters json;
ALTER TABLE approvals ADD COLUMN arguments json;
ALTER TABLE approvals ADD CONSTRAINT approvals_arguments_approve
    CHECK (arguments IS NULL OR (decision IS NOT NULL AND decision = 'approve'));
-- A call is made with the arguments of one approval.
CREATE UNIQUE INDEX approvals_edited ON approvals (tenant_id, run_id, step) WHERE arguments IS NOT NULL;

COMMENT ON COLUMN approvals.parameters IS
    'The JSON Schema of the tool''s arguments when the question was asked: edited arguments must match it. '
    'NULL for a call of unknown outcome.';
COMMENT ON COLUMN approvals.arguments IS
    'The arguments that the person approved in place of the model''s; NULL if the call is made as the '
    'model wrote it. The model''s stay in steps.';
COMMENT ON COLUMN approvals.answer IS 'What the model is told, for result, fail and reject; else NULL.';

GRANT UPDATE (arguments) ON approvals TO baton_app;
