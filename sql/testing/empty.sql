-- Delete all rows of a database for tests, except the applied migrations.
--
-- Returns: no row.
-- Locks: the rows, or the whole table if it is larger than 1 MiB. A transaction that a test left open
--   makes the statement fail after 5 s.
-- Index: none. A small table is read whole, which takes less time than to truncate it: TRUNCATE
--   creates new files for the table and for each index.
-- Idempotent: a second run finds no row.
DO $do$
DECLARE
    filled regclass;
BEGIN
    PERFORM set_config('lock_timeout', '5s', true);
    FOR filled IN
        SELECT c.oid
          FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace = 'asyncsvc'::regnamespace
           AND c.relkind = 'r'
           AND c.relname <> 'migration'
           AND pg_relation_size(c.oid) > 0
         ORDER BY c.relname
    LOOP
        IF pg_relation_size(filled) > 1048576 THEN
            EXECUTE format('TRUNCATE %s CASCADE', filled);
        ELSE
            EXECUTE format('DELETE FROM %s', filled);
        END IF;
    END LOOP;
END
$do$
