-- A run on a thread that a later one rolled back leaves no message there.

ALTER TABLE runs ADD COLUMN rolled_back boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN runs.rolled_back IS
    'Whether a later run of its thread rolled it back: then its end appends nothing to the thread.';
GRANT UPDATE (rolled_back) ON runs TO baton_app;

DROP TRIGGER end_on_thread ON runs;
CREATE TRIGGER end_on_thread AFTER UPDATE ON runs FOR EACH ROW
    WHEN (NEW.thread_messages IS NOT NULL AND OLD.finished_at IS NULL
          AND NEW.finished_at IS NOT NULL AND NOT NEW.rolled_back)
    EXECUTE FUNCTION end_on_thread();
