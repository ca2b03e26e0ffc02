-- Compactions: a turn in which the model summarises the conversation, so that later turns read the summary
-- in place of everything before it. Only requests with `context_management` have such steps. They have no
-- finish reason: a worker of the version before cannot read one, and gives its run back.

-- Not in messages, because it is no part of what the run says, and of what its thread keeps.
ALTER TABLE steps ADD COLUMN summary json;
COMMENT ON COLUMN steps.summary IS
    'Of a turn that compacts the conversation: the message in which the model wrote the summary; NULL for '
    'every other step. json and not jsonb, because it goes back to the model as it came.';
