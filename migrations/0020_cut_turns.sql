-- What a turn that was broken off had shown is kept, apart from what runs said: a client that saw
-- it can compare, and nothing that reads messages can take it for a whole answer.
ALTER TABLE steps ADD COLUMN cut_message json;
COMMENT ON COLUMN steps.cut_message IS
    'What had arrived of a turn that was broken off by a cancel or a failure; NULL for every other '
    'step. Such a turn has no row in messages, and is never shown to a model.';
ALTER TABLE steps ADD COLUMN usage_estimated boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN steps.usage_estimated IS
    'Whether its tokens are Baton''s guess, because the upstream was cut off before it told them.';
ALTER TABLE runs ADD COLUMN usage_estimated boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN runs.usage_estimated IS
    'Whether a part of its tokens is Baton''s guess: see steps.';
-- The replay of a run whose events are no longer stored names each call's beginning by its true id.
ALTER TABLE steps ADD COLUMN started_event_id bigint;
COMMENT ON COLUMN steps.started_event_id IS
    'The event that showed the beginning of a call whose result is recorded; NULL before, for a '
    'turn, and for calls that ended before the column was there.';
