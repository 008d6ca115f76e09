-- Whether the generator exists.
SELECT to_regnamespace('bench') IS NOT NULL
