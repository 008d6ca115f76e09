-- Store the hashes of new tokens whose statement does not store them.
--
-- Returns: token_id of each row that it stored.
-- Locks: the new rows, until the end of the transaction.
-- Index: the primary key rejects a secret that is stored already; with :if_new such a row is skipped.
-- Notes: for Citus, after api_token/create or rotate, or before import_many, in the same transaction.
INSERT INTO asyncsvc.api_token_hash AS h (token_hash, tenant_id, token_id)
SELECT r.token_hash, :tenant_id, r.token_id
  FROM unnest(:token_ids::text[], :token_hashes::bytea[]) AS r (token_id, token_hash)
ON CONFLICT (token_hash) DO NOTHING    --? if_new
RETURNING h.token_id
