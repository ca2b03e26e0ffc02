-- Limits of what one run may use up. A run that reaches one ends with its name as the finish reason.

-- Four words more. What is there was checked when it was written.
ALTER DOMAIN finish_reason DROP CONSTRAINT finish_reason_known;
ALTER DOMAIN finish_reason ADD CONSTRAINT finish_reason_known CHECK (VALUE IN (
    'stop',               -- the model had said all it had to say
    'length',             -- the token limit
    'tool_calls',         -- the client is to execute tool calls
    'content_filter',     -- the upstream withheld the rest
    'max_turns',          -- the limit of model turns
    'budget',             -- the budget of the run's key
    'max_tokens',         -- the run's limit of tokens
    'max_cost',           -- the run's limit of cost
    'max_tool_calls',     -- the run's limit of tool calls
    'max_wall_time'       -- the run's limit of time
)) NOT VALID;
COMMENT ON DOMAIN finish_reason IS
    'stop: the model had said all it had to say. length: the token limit. tool_calls: the client '
    'is to execute tool calls. content_filter: the upstream withheld the rest. max_turns: the '
    'limit of model turns. budget: the budget of the run''s key. max_tokens, max_cost, max_tool_calls, '
    'max_wall_time: the run''s limit of tokens, cost, tool calls or time.';
