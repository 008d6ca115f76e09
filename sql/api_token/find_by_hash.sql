-- Find the tenant and the id of a token by the hash of its secret.
--
-- Returns: tenant_id, token_id.
-- Locks: none.
-- Index: the primary key of api_token_hash.
-- Notes: on Citus, where api_token_hash is on the coordinator and the token on the node of its tenant.
--   Elsewhere api_token/verify also reads the hash. See there for the parameters.
SELECT h.tenant_id, h.token_id
  FROM asyncsvc.api_token_hash AS h
 WHERE (h.token_hash = :token_hash
        OR h.token_hash IN (:second_hash, :third_hash, :fourth_hash) --? second_hash, third_hash, fourth_hash
       )
