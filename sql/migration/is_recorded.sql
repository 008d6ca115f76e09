-- Whether the record of migrations exists, for a role that may only read: in a fresh database
-- everything is pending, and that is no error.
SELECT EXISTS (
    SELECT
      FROM pg_catalog.pg_class AS t
      JOIN pg_catalog.pg_namespace AS n ON n.oid = t.relnamespace
     WHERE n.nspname = 'asyncsvc' AND t.relname = 'migration'
) AS is_recorded
