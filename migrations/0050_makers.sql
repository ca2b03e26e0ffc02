-- Makers of keys and of one-time tokens, so that these end with the authority by which they were
-- made.

CREATE FUNCTION user_of_actor(actor text) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN actor ~ '^user:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                THEN substr(actor, 6)::uuid END;
COMMENT ON FUNCTION user_of_actor(text) IS
    'The person of an actor as the audit log names actors; NULL if it is no person.';

CREATE FUNCTION key_of_actor(actor text) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN actor ~ '^api_key:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
                THEN substr(actor, 9)::uuid END;
COMMENT ON FUNCTION key_of_actor(text) IS
    'The API key of an actor as the audit log names actors; NULL if it is no key.';

CREATE FUNCTION role_rank(role member_role) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN array_position(ARRAY['viewer', 'member', 'admin', 'owner'], role::text);
COMMENT ON FUNCTION role_rank(member_role) IS 'A role''s place among the roles; a higher one may do more.';

ALTER TABLE api_keys ADD COLUMN vouched_by text;
ALTER TABLE api_keys
    ADD COLUMN maker_user uuid
        GENERATED ALWAYS AS (user_of_actor(coalesce(vouched_by, created_by))) STORED,
    ADD COLUMN maker_key uuid
        GENERATED ALWAYS AS (key_of_actor(coalesce(vouched_by, created_by))) STORED;
COMMENT ON COLUMN api_keys.vouched_by IS
    'The actor that kept it when its maker left, as the audit log names actors; NULL while its maker answers '
    'for it.';
COMMENT ON COLUMN api_keys.maker_user IS
    'The person who answers for it, by vouched_by or created_by; NULL if it is no person.';
COMMENT ON COLUMN api_keys.maker_key IS
    'The key that answers for it, by vouched_by or created_by; NULL if it is no key.';
GRANT UPDATE (vouched_by) ON api_keys TO baton_app;

ALTER TABLE one_time_tokens
    ADD COLUMN maker_user uuid GENERATED ALWAYS AS (user_of_actor(created_by)) STORED,
    ADD COLUMN maker_key  uuid GENERATED ALWAYS AS (key_of_actor(created_by)) STORED,
    DROP CONSTRAINT one_time_tokens_coherent,
    ADD CONSTRAINT one_time_tokens_coherent CHECK (CASE kind
        WHEN 'password_reset' THEN user_id IS NOT NULL AND role IS NULL
        ELSE tenant_id IS NOT NULL AND role IS NOT NULL AND user_id IS NULL
    END);
COMMENT ON COLUMN one_time_tokens.maker_user IS 'The person who made it; NULL if it is no person.';
COMMENT ON COLUMN one_time_tokens.maker_key IS 'The key that made it; NULL if it is no key.';
COMMENT ON COLUMN one_time_tokens.tenant_id IS
    'The tenant to join. Of a password reset the tenant that it was made in; NULL if an operator '
    'made it.';
CREATE INDEX one_time_tokens_open_resets ON one_time_tokens (user_id)
    WHERE kind = 'password_reset' AND used_at IS NULL AND revoked_at IS NULL;
COMMENT ON INDEX one_time_tokens_open_resets IS 'The resets that a change of membership ends.';

-- A tenant makes and ends resets of its own members too.
DROP POLICY tenant ON one_time_tokens;
CREATE POLICY tenant ON one_time_tokens TO baton_app
    USING (tenant_id = current_tenant() AND kind IN ('invite', 'password_reset'))
    WITH CHECK (tenant_id = current_tenant() AND kind IN ('invite', 'password_reset'));

CREATE FUNCTION maker_may_give(tenant uuid, by_user uuid, by_key uuid, given member_role)
    RETURNS boolean LANGUAGE sql STABLE
    RETURN CASE
        WHEN by_user IS NOT NULL THEN EXISTS (
            SELECT FROM memberships m JOIN users u ON u.id = m.user_id
            WHERE m.tenant_id = tenant AND m.user_id = by_user AND u.disabled_at IS NULL
              AND role_rank(m.role) >= greatest(role_rank(given), role_rank('admin')))
        WHEN by_key IS NOT NULL THEN EXISTS (
            SELECT FROM api_keys k
            WHERE k.tenant_id = tenant AND k.id = by_key AND k.revoked_at IS NULL
              AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()))
        ELSE true
    END;
COMMENT ON FUNCTION maker_may_give(uuid, uuid, uuid, member_role) IS
    'Whether the maker of a one-time token could make it now: a person who is an administrator of '
    'the tenant with no lower a role, or a key that is good. The rights of a key never change. True '
    'of operators, and of people of other issuers, whose one-time tokens end with their own.';

CREATE FUNCTION end_resets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE one_time_tokens SET revoked_at = clock_timestamp()
    WHERE user_id = coalesce(NEW.user_id, OLD.user_id) AND kind = 'password_reset'
      AND tenant_id IS NOT NULL AND used_at IS NULL AND revoked_at IS NULL;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION end_resets() IS
    'Ends the password resets that tenants made for a person whose membership changes: a reset is '
    'good for what the person was when it was made.';
CREATE TRIGGER end_resets AFTER INSERT OR DELETE ON memberships
    FOR EACH ROW EXECUTE FUNCTION end_resets();
CREATE TRIGGER end_resets_of_role AFTER UPDATE OF role ON memberships
    FOR EACH ROW WHEN (OLD.role IS DISTINCT FROM NEW.role) EXECUTE FUNCTION end_resets();
