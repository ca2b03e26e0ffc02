-- A tool's server may ask a person for something in the middle of a call.

-- The domains before these are replaced, because a later migration writes their words anew.
CREATE DOMAIN question_reason AS text CONSTRAINT question_reason_known CHECK (VALUE IN (
    'outcome unknown',    -- begun, without a recorded result, of a tool that must not be called twice
    'approval required',  -- not begun, of a tool whose calls a person must approve
    'budget',             -- no call: the run has reached a limit of its own
    'input'               -- begun, and left by the tool's server, which asks for something first
));
COMMENT ON DOMAIN question_reason IS
    'outcome unknown: the call was begun, its worker was lost before the result was recorded, and '
    'its tool cannot recognise a repetition. approval required: the operator or the agent requires a '
    'person''s yes before the tool is called, and the call has not begun. budget: the run has reached a '
    'limit of its own, and waits for a higher one. input: the server of the tool asks a person for something, '
    'and goes on with the call after the answer.';

CREATE DOMAIN question_decision AS text CONSTRAINT question_decision_known CHECK (VALUE IN (
    'retry',              -- the call is made again, once
    'result',             -- it happened: the model is told this result
    'fail',               -- it is given up: the model is told that it failed
    'approve',            -- the call is made
    'reject',             -- the call is not made: the model is told so, with the reason
    'raise',              -- the run goes on with higher limits
    'stop',               -- the run ends at its limit
    'accept',             -- the server gets what it asked for
    'decline',            -- the server does not get it
    'cancel'              -- the server does not get it: nobody chose
));
COMMENT ON DOMAIN question_decision IS
    'Of an unknown outcome: retry: the call is made again, once. result: it happened, and the model is '
    'told this result. fail: it is given up, and the model is told that it failed. Of a call that '
    'requires approval: approve: the call is made. reject: it is not made, and the model is told so. Of a '
    'run at its limit: raise: it goes on with higher limits. stop: it ends. Of a server that asks for something: '
    'accept: it gets that. decline: the person does not give it. cancel: the person did not choose.';

ALTER TABLE approvals
    ALTER COLUMN reason TYPE question_reason,
    ALTER COLUMN decision TYPE question_decision;
COMMENT ON COLUMN approvals.reason IS 'Why a person is asked: see the domain question_reason.';
COMMENT ON COLUMN approvals.decision IS 'What is to be done: see the domain question_decision. NULL '
    'while undecided.';

ALTER TABLE approvals ADD COLUMN input json;
COMMENT ON COLUMN approvals.input IS
    'The questions of the tool''s server, and their round; NULL unless the reason is input. The JSON of the content '
    'for the server is in answer.';

ALTER TABLE steps ADD COLUMN paused json;
COMMENT ON COLUMN steps.paused IS
    'The state in which the tool''s server left the call without a result, with the bytes that go back to the '
    'server; NULL before, and after the result.';
COMMENT ON COLUMN steps.started_event_id IS
    'The event that showed the beginning of a call whose result is recorded, or that its server has left; NULL '
    'before, for a turn, and for calls that ended before the column was there.';
