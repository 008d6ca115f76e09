-- Store the hash of a new token whose statement did not store it.
--
-- Returns: no row.
-- Locks: the new row, until the end of the transaction.
-- Index: the primary key rejects a secret that is stored already.
-- Notes: for Citus, after api_token/create or rotate in the same transaction.
INSERT INTO asyncsvc.api_token_hash (token_hash, tenant_id, token_id)
VALUES (:token_hash, :tenant_id, :token_id)
