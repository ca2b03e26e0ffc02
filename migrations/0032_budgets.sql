-- Monthly budgets of keys. What a run may use up is taken from the month before it is used: a first
-- part by the commit that accepts the run, the rest before each turn of the model.

-- One word more. What is there was checked when it was written.
ALTER DOMAIN finish_reason DROP CONSTRAINT finish_reason_known;
ALTER DOMAIN finish_reason ADD CONSTRAINT finish_reason_known CHECK (VALUE IN (
    'stop',               -- the model had said all it had to say
    'length',             -- the token limit
    'tool_calls',         -- the client is to execute tool calls
    'content_filter',     -- the upstream withheld the rest
    'max_turns',          -- the limit of model turns
    'budget'              -- the budget of the run's key
)) NOT VALID;
COMMENT ON DOMAIN finish_reason IS
    'stop: the model had said all it had to say. length: the token limit. tool_calls: the client '
    'is to execute tool calls. content_filter: the upstream withheld the rest. max_turns: the '
    'limit of model turns. budget: the budget of the run''s key.';

CREATE TABLE key_months (
    tenant_id       uuid   NOT NULL,
    limits_of       uuid   NOT NULL,
    spent_tokens    bigint NOT NULL DEFAULT 0,
    reserved_tokens bigint NOT NULL DEFAULT 0,
    spent_nanos     bigint NOT NULL DEFAULT 0,
    reserved_nanos  bigint NOT NULL DEFAULT 0,
    month           date   NOT NULL CHECK (month = date_trunc('month', month)::date),
    PRIMARY KEY (tenant_id, limits_of, month)
) WITH (fillfactor = 50);
COMMENT ON TABLE key_months IS
    'What runs of a key with a budget have used up in a month, and what is set aside for those that '
    'have not ended. It is always the sum of their reservations. Its row is locked by whatever '
    'changes it: two at a time cannot both have the last of a budget.';
COMMENT ON COLUMN key_months.tenant_id IS 'The owner.';
COMMENT ON COLUMN key_months.limits_of IS 'The key whose budget it is: see api_keys.';
COMMENT ON COLUMN key_months.spent_tokens IS 'Tokens that runs that have ended used up.';
COMMENT ON COLUMN key_months.reserved_tokens IS
    'Tokens that runs that have not ended have used up or may use up.';
COMMENT ON COLUMN key_months.spent_nanos IS
    'Their cost, in billionths of the currency of the prices, as far as models had one.';
COMMENT ON COLUMN key_months.reserved_nanos IS 'The cost of those that have not ended, as at most.';
COMMENT ON COLUMN key_months.month IS 'The month''s first day, UTC: that of the runs'' acceptance.';

ALTER TABLE key_months ENABLE ROW LEVEL SECURITY;
ALTER TABLE key_months FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON key_months TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON key_months TO baton_system USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON key_months TO baton_app;
GRANT SELECT, UPDATE ON key_months TO baton_system;

ALTER TABLE reservations
    ADD COLUMN reserved_tokens bigint NOT NULL DEFAULT 0,
    ADD COLUMN reserved_nanos  bigint NOT NULL DEFAULT 0,
    ADD COLUMN lost_tokens     bigint NOT NULL DEFAULT 0,
    ADD COLUMN lost_nanos      bigint NOT NULL DEFAULT 0,
    ADD COLUMN open_tokens     bigint NOT NULL DEFAULT 0,
    ADD COLUMN open_nanos      bigint NOT NULL DEFAULT 0,
    ADD COLUMN spent_tokens    bigint NOT NULL DEFAULT 0,
    ADD COLUMN spent_nanos     bigint NOT NULL DEFAULT 0,
    ADD COLUMN month           date,
    ADD COLUMN open_step       integer,
    ADD COLUMN open_attempt    integer;
COMMENT ON COLUMN reservations.reserved_tokens IS
    'What it takes of the month''s tokens: what it has used up, and what its turn at work may use up. '
    '0 once it has ended.';
COMMENT ON COLUMN reservations.reserved_nanos IS 'The same in money.';
COMMENT ON COLUMN reservations.lost_tokens IS
    'Tokens of turns whose worker was lost before it had recorded them: all that they might use up.';
COMMENT ON COLUMN reservations.lost_nanos IS 'Their cost.';
COMMENT ON COLUMN reservations.open_tokens IS 'What the newest turn may use up.';
COMMENT ON COLUMN reservations.open_nanos IS 'Its cost.';
COMMENT ON COLUMN reservations.spent_tokens IS 'What it used up in the end; 0 before.';
COMMENT ON COLUMN reservations.spent_nanos IS 'Its cost; 0 before.';
COMMENT ON COLUMN reservations.month IS 'The month it takes from; NULL if the key has no budget.';
COMMENT ON COLUMN reservations.open_step IS
    'The newest turn that was begun. It is lost if it has no entry in usage_entries and another '
    'attempt begins it, or its run ends.';
COMMENT ON COLUMN reservations.open_attempt IS 'The attempt that began it.';

CREATE FUNCTION answer_within(
    left_tokens bigint, left_nanos bigint, prompt_tokens bigint, prompt_nanos bigint,
    wanted bigint, picos_per_token bigint
) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN least(
    wanted,
    left_tokens - prompt_tokens,
    CASE WHEN left_nanos < prompt_nanos THEN -1
         ELSE floor((left_nanos - prompt_nanos)::numeric * 1000 / nullif(picos_per_token, 0))
    END
)::bigint;
COMMENT ON FUNCTION answer_within(bigint, bigint, bigint, bigint, bigint, bigint) IS
    'How many tokens a model may write, if so much is left and its prompt takes so much of it. What '
    'is left is NULL where there is no limit.';

CREATE OR REPLACE FUNCTION follow_metered_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    mine reservations;
    used record;
BEGIN
    SELECT * INTO mine FROM reservations
    WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id AND settled_at IS NULL
    FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    mine.running := NEW.status IN ('queued', 'running');
    IF mine.month IS NOT NULL AND NOT mine.running THEN
        SELECT coalesce(sum(input_tokens + output_tokens), 0) AS tokens,
               coalesce(sum(cost_nanos), 0) AS nanos,
               coalesce(bool_or(step = mine.open_step), false) AS recorded
        INTO used
        FROM usage_entries
        WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id
          AND day = (NEW.created_at AT TIME ZONE 'UTC')::date;
        -- A turn that nobody will record any more.
        IF mine.open_step IS NOT NULL AND NOT used.recorded THEN
            mine.lost_tokens := mine.lost_tokens + mine.open_tokens;
            mine.lost_nanos := mine.lost_nanos + mine.open_nanos;
        END IF;
        mine.open_step := NULL;
        -- While it waits for a person it holds what it has used up, and once it has ended nothing.
        IF NEW.finished_at IS NULL THEN
            UPDATE key_months SET
                reserved_tokens = reserved_tokens - mine.reserved_tokens
                                  + mine.lost_tokens + used.tokens,
                reserved_nanos = reserved_nanos - mine.reserved_nanos
                                 + mine.lost_nanos + used.nanos
            WHERE tenant_id = mine.tenant_id AND limits_of = mine.limits_of AND month = mine.month;
            mine.reserved_tokens := mine.lost_tokens + used.tokens;
            mine.reserved_nanos := mine.lost_nanos + used.nanos;
        ELSE
            mine.spent_tokens := mine.lost_tokens + used.tokens;
            mine.spent_nanos := mine.lost_nanos + used.nanos;
            UPDATE key_months SET
                reserved_tokens = reserved_tokens - mine.reserved_tokens,
                reserved_nanos = reserved_nanos - mine.reserved_nanos,
                spent_tokens = key_months.spent_tokens + mine.spent_tokens,
                spent_nanos = key_months.spent_nanos + mine.spent_nanos
            WHERE tenant_id = mine.tenant_id AND limits_of = mine.limits_of AND month = mine.month;
            mine.reserved_tokens := 0;
            mine.reserved_nanos := 0;
        END IF;
    END IF;
    UPDATE reservations SET
        running = mine.running,
        settled_at = CASE WHEN NEW.finished_at IS NOT NULL THEN clock_timestamp() END,
        reserved_tokens = mine.reserved_tokens,
        reserved_nanos = mine.reserved_nanos,
        lost_tokens = mine.lost_tokens,
        lost_nanos = mine.lost_nanos,
        spent_tokens = mine.spent_tokens,
        spent_nanos = mine.spent_nanos,
        open_step = mine.open_step
    WHERE tenant_id = NEW.tenant_id AND run_id = NEW.id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION follow_metered_run() IS
    'Keeps the reservation of a metered run true when the run''s state changes, and settles it when '
    'the run ends.';
