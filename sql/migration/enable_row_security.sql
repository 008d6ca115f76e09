-- Turn row-level security on for each table with a tenant_id on which it is off.
--
-- Returns: no row. A role then sees and writes only rows whose tenant_id equals the setting
--   asyncsvc.tenant_id, which row_security/set_tenant sets for one transaction. Owners of the tables,
--   superusers and roles with BYPASSRLS are not restricted. A token is looked up before its tenant is
--   known, so a role also sees the rows whose hashes are in asyncsvc.token_hashes.
-- Locks: each changed table exclusively until the end of the transaction.
-- Index: the catalog.
-- Timeout: none. The statement waits for the users of each table.
DO $do$
DECLARE
    tenants_table regclass;
BEGIN
    FOR tenants_table IN
        SELECT c.oid::regclass
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant_id'
         WHERE c.relnamespace = 'asyncsvc'::regnamespace
           AND c.relkind IN ('r', 'p')
           AND NOT c.relrowsecurity
         ORDER BY c.relname
    LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', tenants_table);
        EXECUTE format('CREATE POLICY of_tenant ON %s
                         USING (tenant_id = current_setting(''asyncsvc.tenant_id'', true))',
                       tenants_table);
        IF tenants_table IN ('asyncsvc.api_token'::regclass, 'asyncsvc.api_token_hash'::regclass) THEN
            EXECUTE format('CREATE POLICY select_by_hash ON %s FOR SELECT
                             USING (token_hash = ANY (string_to_array(
                                        current_setting(''asyncsvc.token_hashes'', true), '','')::bytea[]))',
                           tenants_table);
        END IF;
    END LOOP;
END
$do$
