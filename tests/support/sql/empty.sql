-- Delete all rows, statistics and counts of a migrated database, like a new copy of the template.
-- Empty tables are not truncated, since each truncated table and index creates new files.
DO $do$
DECLARE
    filled text;
BEGIN
    SELECT string_agg(c.oid::regclass::text, ', ') INTO filled
      FROM pg_class AS c
     WHERE c.relnamespace = 'asyncsvc'::regnamespace
       AND c.relkind = 'r'
       AND c.relname <> 'migration'
       AND (pg_relation_size(c.oid) > 0 OR c.reltuples <> -1);
    IF filled IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || filled || ' RESTART IDENTITY CASCADE';
    END IF;
    PERFORM set_config('allow_system_table_mods', 'on', true);
    DELETE FROM pg_statistic AS s
     USING pg_class AS c
     WHERE c.oid = s.starelid
       AND c.relnamespace = 'asyncsvc'::regnamespace;
    DELETE FROM pg_statistic_ext_data AS d
     USING pg_statistic_ext AS s, pg_class AS c
     WHERE s.oid = d.stxoid
       AND c.oid = s.stxrelid
       AND c.relnamespace = 'asyncsvc'::regnamespace;
    PERFORM pg_stat_reset();
END
$do$
