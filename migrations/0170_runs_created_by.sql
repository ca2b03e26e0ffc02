ALTER TABLE runs ADD COLUMN created_by text;
COMMENT ON COLUMN runs.created_by IS
    'The actor that submitted it, as the audit log names actors; NULL for runs accepted before this column.';
