-- A tool's server may go on with a call by itself, as a task: it is asked for the result from time to time.

ALTER TABLE steps ADD COLUMN poll_at timestamptz;
COMMENT ON COLUMN steps.poll_at IS
    'When the server of a call that goes on as a task is asked for the result again; of an ended run, when it is '
    'cancelled again. NULL without such a task.';
ALTER TABLE steps ADD COLUMN cancel_tries smallint NOT NULL DEFAULT 0;
COMMENT ON COLUMN steps.cancel_tries IS
    'How often a worker was woken to cancel the task of an ended run.';
CREATE INDEX steps_polled ON steps (poll_at) WHERE poll_at IS NOT NULL;
