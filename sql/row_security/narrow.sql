-- Narrows what the statements that follow in this transaction may see and write, where row-level
-- security is on, to the rows of :tenant_id and the tokens of :token_hashes (as bytea is written,
-- with commas between); empty is nobody's. The policies in migration/enable_row_security read it.
-- It returns both.
--
-- Locks: none. Index: none. The settings are local to the transaction: behind a pooler, and in a
-- pool, nobody else ever meets them.
SELECT set_config('asyncsvc.tenant_id', :tenant_id, true) AS tenant_id,
       set_config('asyncsvc.token_hashes', :token_hashes, true) AS token_hashes
