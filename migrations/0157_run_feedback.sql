CREATE TABLE run_feedback (
    tenant_id  uuid             NOT NULL,
    run_id     uuid             NOT NULL,
    id         uuid             NOT NULL,
    key        text             NOT NULL CHECK (key ~ '^[a-z][a-z0-9_.-]{0,62}$'),
    score      double precision,
    value      text             CHECK (length(value) <= 1000),
    comment    text             CHECK (length(comment) <= 4000),
    created_by text             NOT NULL,
    created_at timestamptz      NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (tenant_id, run_id, id),
    CONSTRAINT run_feedback_one_judgement CHECK (num_nonnulls(score, value) = 1)
);
COMMENT ON TABLE run_feedback IS
    'Judgements of people and programs about runs. Only added, and removed with their run.';
COMMENT ON COLUMN run_feedback.tenant_id IS 'The owner.';
COMMENT ON COLUMN run_feedback.run_id IS 'The run.';
COMMENT ON COLUMN run_feedback.id IS 'UUIDv7: lists are sorted by it.';
COMMENT ON COLUMN run_feedback.key IS 'The judged quality, such as helpful.';
COMMENT ON COLUMN run_feedback.score IS 'The judgement as a number; NULL if it is a word.';
COMMENT ON COLUMN run_feedback.value IS 'The judgement as a word; NULL if it is a number.';
COMMENT ON COLUMN run_feedback.comment IS 'An explanation; NULL if none.';
COMMENT ON COLUMN run_feedback.created_by IS 'The actor that gave it, as the audit log names actors.';
COMMENT ON COLUMN run_feedback.created_at IS 'When it was given.';

ALTER TABLE run_feedback ENABLE ROW LEVEL SECURITY;
ALTER TABLE run_feedback FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON run_feedback TO baton_app
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
CREATE POLICY system ON run_feedback TO baton_system USING (true) WITH CHECK (true);

GRANT SELECT, INSERT ON run_feedback TO baton_app;
-- The removal of a deleted thread takes the feedback of its runs too.
GRANT SELECT, DELETE ON run_feedback TO baton_system;
