-- Makes a migrated database as if it had just been copied: without rows, statistics or counts.
DO $do$
BEGIN
    EXECUTE (SELECT 'TRUNCATE ' || string_agg(c.oid::regclass::text, ', ') || ' RESTART IDENTITY'
               FROM pg_class AS c
              WHERE c.relnamespace = 'asyncsvc'::regnamespace
                AND c.relkind = 'r'
                AND c.relname <> 'migration');
    PERFORM set_config('allow_system_table_mods', 'on', true);
    DELETE FROM pg_statistic AS s
     USING pg_class AS c
     WHERE c.oid = s.starelid
       AND c.relnamespace = 'asyncsvc'::regnamespace;
    PERFORM pg_stat_reset();
END
$do$
