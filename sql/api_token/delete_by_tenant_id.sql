-- Deletes all tokens of a tenant, as when the tenant leaves, and returns how many there were.
-- Nothing of them remains; to end tokens and keep their record, revoke them.
--
-- Locks: the rows. Index: api_token_tenant_idx.
WITH deleted AS (
    DELETE FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
    RETURNING t.id
)
SELECT count(*) AS deleted
  FROM deleted
