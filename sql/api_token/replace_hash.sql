-- Set the hash of a token whose statement did not set it.
--
-- Returns: no row.
-- Locks: the row, until the end of the transaction.
-- Index: api_token_hash_token_idx.
-- Notes: for Citus, after api_token/record_use in the same transaction, which holds the lock of the token.
UPDATE asyncsvc.api_token_hash AS h
   SET token_hash = :token_hash
 WHERE h.tenant_id = :tenant_id
   AND h.token_id = :token_id
