-- Makes the schema that holds everything, where it is not there yet. Run under the lock of
-- migration/lock, since two sessions that create it at once would both find it absent.
--
-- The schema is looked for first, because CREATE SCHEMA IF NOT EXISTS asks for the right to create
-- schemas in this database even then, and who owns the schema need not have it.
DO $body$
BEGIN
    IF NOT EXISTS (
        SELECT
          FROM pg_catalog.pg_namespace AS n
         WHERE n.nspname = 'asyncsvc'
    ) THEN
        CREATE SCHEMA asyncsvc;
    END IF;
END
$body$
