-- Entries of the audit log about what changed nothing are written now and then, and counted between.
ALTER TABLE sign_in_throttle
    ADD COLUMN left_out bigint NOT NULL DEFAULT 0,
    ADD COLUMN reported bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN sign_in_throttle.left_out IS
    'Entries of the audit log that were left out since the last one that was written.';
COMMENT ON COLUMN sign_in_throttle.reported IS
    'The count of left-out entries that the last written entry tells of.';
COMMENT ON TABLE sign_in_throttle IS
    'How often passwords were tried, and how often something happened that is not worth an entry of '
    'the audit log each time, shared by all servers. A row is a bucket that leaks: each try moves '
    'ready_at on, and a try is refused while ready_at is too far ahead.';
COMMENT ON COLUMN sign_in_throttle.key IS
    'SHA-256 of what is counted, such as a network, an account, or both.';
