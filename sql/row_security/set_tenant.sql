-- Set the tenant and the token hashes whose rows the transaction may see and write.
--
-- Returns: tenant_id, token_hashes: the new values.
-- Locks: none.
-- Index: none.
-- Notes: the policies of migration/enable_row_security read both settings. :token_hashes contains bytea
--   literals, separated by commas. An empty value matches no row. The settings are local to the
--   transaction, so no pooler or pool passes them to another client.
SELECT set_config('asyncsvc.tenant_id', :tenant_id, true) AS tenant_id,
       set_config('asyncsvc.token_hashes', :token_hashes, true) AS token_hashes
