-- Whether this database has the extension Citus.
--
-- Locks: none. Index: none.
SELECT EXISTS (SELECT FROM pg_catalog.pg_extension AS e
                WHERE e.extname = 'citus') AS is_there
