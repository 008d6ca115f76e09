-- Distribute the tables and functions that Citus does not distribute yet.
--
-- Returns: no row. Tables with a tenant_id are distributed by it, colocated with
--   asyncsvc.conversation, so the statements of a tenant run on one node. Functions are created on all nodes.
--   asyncsvc.migration stays on the coordinator, and so does asyncsvc.api_token_hash: a lookup of a token
--   needs no node before its tenant is known, and its writes lock rows, not copies on all nodes.
-- Locks: each table exclusively until the end of the transaction, while its rows are copied.
-- Index: the catalog.
-- Timeout: none. Existing rows are copied to the nodes.
-- Notes: asyncsvc.conversation comes first, since foreign keys refer to it. Citus calls run_on_node_v1 on
--   the node of its tenant_id; it distributes such a function after tables only in sequential mode. Citus
--   plans a statement for the value of its tenant, so it rejects the generic plans of budget_status_v1.
DO $body$
DECLARE
    name text;
    code regprocedure;
BEGIN
    PERFORM set_config('citus.multi_shard_modify_mode', 'sequential', true);
    IF EXISTS (SELECT FROM pg_catalog.pg_proc AS p
                WHERE p.oid = 'asyncsvc.budget_status_v1'::regproc
                  AND p.proconfig IS NOT NULL) THEN
        ALTER FUNCTION asyncsvc.budget_status_v1 RESET ALL;
    END IF;
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
        CONTINUE WHEN code = to_regprocedure('asyncsvc.run_on_node_v1(text, text, text[])');
        PERFORM create_distributed_function(code);
    END LOOP;
    FOR name IN
        SELECT format('%I.%I', n.nspname, c.relname)
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE n.nspname = 'asyncsvc'
           AND c.relkind IN ('r', 'p')
           AND c.relname <> 'api_token_hash'
           AND NOT relation_is_a_known_shard(c.oid)
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_dist_partition AS d
                            WHERE d.logicalrelid = c.oid)
         ORDER BY c.relname <> 'conversation', c.relname
    LOOP
        CASE name
            WHEN 'asyncsvc.conversation' THEN
                PERFORM create_distributed_table(name, 'tenant_id');
            ELSE
                PERFORM create_distributed_table(
                    name, 'tenant_id', colocate_with => 'asyncsvc.conversation');
        END CASE;
    END LOOP;
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_dist_object AS d
                    WHERE d.classid = 'pg_catalog.pg_proc'::regclass
                      AND d.objid = 'asyncsvc.run_on_node_v1'::regproc
                      AND d.distribution_argument_index = 0) THEN
        PERFORM create_distributed_function(
            'asyncsvc.run_on_node_v1(text, text, text[])', 'tenant_id',
            colocate_with => 'asyncsvc.conversation', force_delegation => true);
    END IF;
END
$body$
