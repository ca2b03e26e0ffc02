-- The metadata of threads, a row for each field: a search reads the threads that have it, not all of the
-- tenant's. An index on threads cannot serve the search. Under row-level security only leakproof conditions
-- reach an index, and neither containment of JSON nor likeness of text is leakproof; equality is.
--
-- A trigger keeps the rows, so that threads written by the version before have them too.

CREATE TABLE thread_fields (
    tenant_id uuid NOT NULL,
    name      text COLLATE "C" NOT NULL,
    value     text COLLATE "C" NOT NULL,
    thread_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, name, value, thread_id),
    FOREIGN KEY (tenant_id, thread_id) REFERENCES threads (tenant_id, id) ON DELETE CASCADE
);
COMMENT ON TABLE thread_fields IS
    'The fields in the metadata of threads that a search can name: texts. Written by a trigger on threads.';
COMMENT ON COLUMN thread_fields.tenant_id IS 'The owner.';
COMMENT ON COLUMN thread_fields.name IS 'The name of the field.';
COMMENT ON COLUMN thread_fields.value IS 'Its text.';
COMMENT ON COLUMN thread_fields.thread_id IS 'The thread.';
-- The end of a thread removes its rows by this one. It has no order, because a search in the order of threads
-- must not take it for the other index.
CREATE INDEX thread_fields_thread ON thread_fields USING hash (thread_id);

ALTER TABLE thread_fields ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant ON thread_fields TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT, INSERT, DELETE ON thread_fields TO baton_app;

CREATE FUNCTION thread_fields_of(metadata json) RETURNS TABLE (name text, value text)
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    -- A NUL is no text here. Longer names and values cannot be asked for, and would not fit the index.
    IF json_typeof(metadata) = 'object' AND strpos(metadata::text, '\u0000') = 0 THEN
        RETURN QUERY
            SELECT DISTINCT field.key, field.value #>> '{}'
            FROM json_each(metadata) AS field
            WHERE json_typeof(field.value) = 'string'
              AND char_length(field.key) <= 64 AND char_length(field.value #>> '{}') <= 512;
    END IF;
END
$$;
COMMENT ON FUNCTION thread_fields_of(json) IS 'Returns the fields of metadata that a search can name.';

CREATE FUNCTION note_thread_fields() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        DELETE FROM thread_fields WHERE tenant_id = NEW.tenant_id AND thread_id = NEW.id;
    END IF;
    INSERT INTO thread_fields (tenant_id, name, value, thread_id)
    SELECT NEW.tenant_id, field.name, field.value, NEW.id
    FROM thread_fields_of(NEW.metadata) AS field;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION note_thread_fields() IS 'Keeps the rows of thread_fields for a thread.';
CREATE TRIGGER note_new_fields AFTER INSERT ON threads FOR EACH ROW
    WHEN (NEW.metadata IS NOT NULL)
    EXECUTE FUNCTION note_thread_fields();
CREATE TRIGGER note_changed_fields AFTER UPDATE OF metadata ON threads FOR EACH ROW
    WHEN (NEW.metadata::text IS DISTINCT FROM OLD.metadata::text)
    EXECUTE FUNCTION note_thread_fields();

-- The owner, who migrates, sees no rows otherwise.
ALTER TABLE threads NO FORCE ROW LEVEL SECURITY;
INSERT INTO thread_fields (tenant_id, name, value, thread_id)
SELECT thread.tenant_id, field.name, field.value, thread.id
FROM threads AS thread CROSS JOIN LATERAL thread_fields_of(thread.metadata) AS field;
ALTER TABLE threads FORCE ROW LEVEL SECURITY;
ALTER TABLE thread_fields FORCE ROW LEVEL SECURITY;
