-- Return whether the database has the extension Citus.
--
-- Returns: exists.
-- Locks: none.
-- Index: the catalog.
SELECT EXISTS (SELECT FROM pg_catalog.pg_extension AS e
                WHERE e.extname = 'citus') AS exists
