-- Find the tenant of a token by the hash of its secret.
--
-- Returns: tenant_id.
-- Locks: none.
-- Index: the primary key of api_token_hash.
-- Notes: for Citus, where api_token_hash is on the coordinator, and the token on the node of its tenant. See
--   api_token/verify for the parameters.
SELECT h.tenant_id
  FROM asyncsvc.api_token_hash AS h
 WHERE (h.token_hash = :token_hash
        OR h.token_hash IN (:second_hash, :third_hash, :fourth_hash) --? second_hash, third_hash, fourth_hash
       )
