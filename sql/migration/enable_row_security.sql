-- Turns row-level security on for each table that has tenants, where it is not on yet: from then on
-- a role sees and writes the rows of asyncsvc.tenant_id alone, a setting that row_security/narrow
-- makes for one transaction, and none without it. The tables' owner, superusers and roles with
-- BYPASSRLS see all, as ever.
--
-- A token is looked up before its tenant is known: so a role also sees the token of a hash that it has,
-- and can neither make, change nor delete one by it.
--
-- Timeout: none. it may wait for whoever uses a table.
--
-- Locks: each table in full for a moment, when this turns it on, once all who use it have let go;
-- none otherwise.
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
        IF tenants_table = 'asyncsvc.api_token'::regclass THEN
            CREATE POLICY found_by_hash ON asyncsvc.api_token FOR SELECT
             USING (token_hash = ANY (string_to_array(
                        current_setting('asyncsvc.token_hashes', true), ',')::bytea[]));
        END IF;
    END LOOP;
END
$do$
