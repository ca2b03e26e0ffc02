-- A run whose next turn fits into its key's month only when other runs have settled waits in the queue,
-- and holds no more than it has used. Its need is recorded, so that new runs do not take what it waits for.

ALTER TABLE reservations
    ADD COLUMN waiting_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN waiting_nanos  bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN reservations.waiting_tokens IS
    'Tokens of the turn that the queued run waits for; 0 if it waits for none. Cleared by the next '
    'begin of a turn.';
COMMENT ON COLUMN reservations.waiting_nanos IS 'The cost of that turn.';
