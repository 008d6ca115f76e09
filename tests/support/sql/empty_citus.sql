-- Delete all rows of a migrated database on Citus. A TRUNCATE creates new files for each shard.
DO $do$
DECLARE
    name regclass;
BEGIN
    FOR name IN
        SELECT d.logicalrelid
          FROM pg_dist_partition AS d
         ORDER BY d.logicalrelid <> 'asyncsvc.conversation'::regclass, d.logicalrelid
    LOOP
        EXECUTE format('DELETE FROM %s', name);
    END LOOP;
    DELETE FROM asyncsvc.api_token_hash;
    DELETE FROM asyncsvc.maintenance;
END
$do$
