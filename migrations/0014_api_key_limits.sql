ALTER TABLE api_keys
    ADD COLUMN last_used_at        timestamptz,
    ADD COLUMN created_by          text,
    ADD COLUMN rotated_from        uuid,
    ADD COLUMN per_minute          integer CHECK (per_minute > 0),
    ADD COLUMN per_day             integer CHECK (per_day > 0),
    ADD COLUMN concurrent_runs     integer CHECK (concurrent_runs > 0),
    ADD COLUMN monthly_tokens      bigint  CHECK (monthly_tokens > 0),
    ADD COLUMN monthly_cost_micros bigint  CHECK (monthly_cost_micros > 0);
COMMENT ON COLUMN api_keys.last_used_at IS 'When it was last used, to the minute; NULL if never.';
COMMENT ON COLUMN api_keys.created_by IS 'Who made it, as the audit log names actors.';
COMMENT ON COLUMN api_keys.rotated_from IS 'The key that it takes the place of; NULL if none.';
COMMENT ON COLUMN api_keys.per_minute IS 'Requests in any 60 seconds; NULL for no limit.';
COMMENT ON COLUMN api_keys.per_day IS 'Requests in any 24 hours; NULL for no limit.';
COMMENT ON COLUMN api_keys.concurrent_runs IS 'Runs at a time; NULL for no limit.';
COMMENT ON COLUMN api_keys.monthly_tokens IS 'Tokens in a calendar month, UTC; NULL for no limit.';
COMMENT ON COLUMN api_keys.monthly_cost_micros IS
    'Cost in a calendar month, UTC, in millionths of the currency of the prices; NULL for no limit.';

-- What a rotation writes: the old key goes on until then.
GRANT UPDATE (expires_at) ON api_keys TO baton_app;
GRANT UPDATE (last_used_at) ON api_keys TO baton_system;
