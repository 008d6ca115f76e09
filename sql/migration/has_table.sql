-- Return whether the table of applied migrations exists. A new database lacks it.
--
-- Returns: exists. The role needs no right to create.
-- Locks: none.
-- Index: the catalog.
SELECT EXISTS (
    SELECT
      FROM pg_catalog.pg_class AS t
      JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
     WHERE n.nspname = 'asyncsvc' AND t.relname = 'migration'
) AS exists
