-- Keys that ended lately, for closing the connections that were made with them: looked for every two
-- seconds by every ingress that lets programs in. Most keys are in neither.
CREATE INDEX api_keys_revoked ON api_keys (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX api_keys_expiring ON api_keys (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON INDEX api_keys_revoked IS 'Keys that were revoked lately.';
COMMENT ON INDEX api_keys_expiring IS 'Keys that have expired lately.';
