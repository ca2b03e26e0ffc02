-- The removal of a deleted thread takes the attempts of its runs too.
GRANT DELETE ON attempts TO baton_system;
