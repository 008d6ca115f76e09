-- Distributes what is not distributed yet, where Citus is: each table that has tenants by tenant_id, all
-- beside asyncsvc.conversation, so that a tenant is on one node and its statements go there; the tokens
-- as a reference table, which each node has whole, for a token is found before its tenant is known; and
-- the functions, which the nodes run. The record of migrations stays on the coordinator.
--
-- Rows that are there move along, table by table, under a lock that keeps everybody else out of the
-- table until the end of the transaction. The conversations come first: others refer to them.
--
-- Timeout: none. rows that are there are copied to the nodes.
DO $body$
DECLARE
    name text;
    code regprocedure;
BEGIN
    FOR code IN
        SELECT p.oid
          FROM pg_catalog.pg_proc AS p
          JOIN pg_catalog.pg_namespace AS n ON n.oid = p.pronamespace
         WHERE n.nspname = 'asyncsvc'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_object AS d
                            WHERE d.classid = 'pg_catalog.pg_proc'::regclass
                              AND d.objid = p.oid)
         ORDER BY p.oid
    LOOP
        PERFORM create_distributed_function(code);
    END LOOP;
    FOR name IN
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE n.nspname = 'asyncsvc'
           AND c.relkind IN ('r', 'p')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition AS d
                            WHERE d.logicalrelid = c.oid)
         ORDER BY c.relname <> 'conversation', c.relname
    LOOP
        CASE name
            WHEN 'asyncsvc.api_token' THEN
                PERFORM create_reference_table(name);
            WHEN 'asyncsvc.conversation' THEN
                PERFORM create_distributed_table(name, 'tenant_id');
            ELSE
                PERFORM create_distributed_table(
                    name, 'tenant_id', colocate_with => 'asyncsvc.conversation');
        END CASE;
    END LOOP;
END
$body$
