-- Titles of threads by a model, if a client asks for one. The thread names the model. The next run that joins the
-- thread takes the wish, in the commit that accepts a run of its own for the title. The scheduler gives the thread
-- the answer of that run. Processes of the version before know no such wish, and leave it.

ALTER TABLE threads ADD COLUMN title_model text;
COMMENT ON COLUMN threads.title_model IS
    'The model to ask for a title, once, when a run joins the thread; NULL if none is to be asked.';
GRANT UPDATE (title_model) ON threads TO baton_app;
GRANT UPDATE (title) ON threads TO baton_system;

ALTER TABLE runs ADD COLUMN titles uuid;
COMMENT ON COLUMN runs.titles IS
    'The thread that its answer is to title; NULL for other runs, and once the answer was used.';
GRANT UPDATE (titles) ON runs TO baton_app, baton_system;
CREATE INDEX runs_titles ON runs (tenant_id, id) WHERE titles IS NOT NULL;
