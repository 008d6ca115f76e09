-- Find the tokens that have one of the hashes of a secret, before an import on Citus.
--
-- Returns: position, tenant_id, token_id.
-- Locks: none.
-- Index: the primary key of api_token_hash.
-- Notes: the lookup has no tenant condition, because a secret is unique across tenants.
SELECT r.position, h.tenant_id, h.token_id
  FROM unnest(:positions::int[], :hashes::bytea[]) AS r (position, hash)
  JOIN asyncsvc.api_token_hash AS h ON h.token_hash = r.hash
