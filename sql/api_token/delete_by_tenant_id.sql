-- Deletes all tokens of a tenant, as when the tenant leaves, and returns how many there were. The
-- audit stays, and has each deletion; to end tokens and keep them, revoke them.
--
-- Locks: the rows. Index: api_token_tenant_idx.
WITH deleted AS (
    DELETE FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
    RETURNING t.tenant_id, t.id, t.name
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'delete', :actor, statement_timestamp(),
           jsonb_build_object('name', t.name)
      FROM deleted AS t
)
SELECT count(*) AS deleted
  FROM deleted
