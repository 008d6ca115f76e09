-- Delete the hashes of tokens whose statement did not delete them.
--
-- Returns: no row.
-- Locks: the rows, until the end of the transaction.
-- Index: api_token_hash_token_idx.
-- Notes: for Citus, after api_token/delete in the same transaction, which holds the locks of the tokens.
DELETE FROM asyncsvc.api_token_hash AS h
 WHERE h.tenant_id = :tenant_id
   AND h.token_id = ANY (:token_ids::text[])
