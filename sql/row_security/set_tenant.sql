-- Set the tenant and the token hashes whose rows the transaction may see and write.
--
-- Returns: tenant_id, token_hashes: the values that were set.
-- Locks: none.
-- Index: none.
-- Notes: The policies of migration/enable_row_security read both settings. :token_hashes holds bytea
--   literals, separated by commas. An empty value matches no row. The settings are local to the
--   transaction, so neither a pooler nor a pool carries them to another client.
SELECT set_config('asyncsvc.tenant_id', :tenant_id, true) AS tenant_id,
       set_config('asyncsvc.token_hashes', :token_hashes, true) AS token_hashes
