-- Which version of pg_trgm is installed in this database, and which could be; NULL for none.
--
-- Locks: none. Index: none.
SELECT (SELECT e.extversion
          FROM pg_catalog.pg_extension AS e
         WHERE e.extname = 'pg_trgm') AS installed,
       (SELECT a.default_version
          FROM pg_catalog.pg_available_extensions AS a
         WHERE a.name = 'pg_trgm') AS available
