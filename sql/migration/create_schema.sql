-- Create the schema if it does not exist.
--
-- Returns: no row.
-- Locks: the caller holds the lock of migration/try_lock.
-- Index: the catalog.
-- Notes: CREATE SCHEMA IF NOT EXISTS needs the right to create schemas even if the schema exists. The
--   owner of the schema may lack it, so the catalog is read first.
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
