-- Whether the generator is there.
SELECT to_regnamespace('bench') IS NOT NULL
