-- The two roles that everything is granted to. Both are group roles: nobody logs in as one of them.
-- Servers log in as a member of both and take on one or the other per connection. Roles belong to
-- the whole PostgreSQL server, so that they may exist already, or be made at this very moment for
-- another database.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['baton_app', 'baton_system'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;

GRANT USAGE ON SCHEMA public TO baton_app, baton_system;

-- What `baton.tenant` says, as an id; NULL when it says nothing, so that nothing matches.
CREATE FUNCTION current_tenant() RETURNS uuid
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('baton.tenant', true), '')::uuid;
COMMENT ON FUNCTION current_tenant() IS
    'The tenant that the current transaction acts for, from the setting baton.tenant; NULL if none.';
