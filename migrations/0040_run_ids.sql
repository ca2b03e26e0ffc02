-- A program that submits over the bus draws its run's id itself. An id names one run, whoever's.
CREATE UNIQUE INDEX runs_id ON runs (id);
COMMENT ON INDEX runs_id IS
    'An id names one run, whoever''s: ids that a program draws are refused if there is such a run.';
