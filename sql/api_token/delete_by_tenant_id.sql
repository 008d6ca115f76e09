-- Delete all tokens of a tenant and record each deletion in the audit, which is kept.
--
-- Returns: deleted, the number of tokens.
-- Locks: the token rows, until the end of the transaction.
-- Index: api_token_tenant_idx.
WITH deleted AS (
    DELETE FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
    RETURNING t.tenant_id, t.id, t.name
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'delete', :actor, statement_timestamp(),
           jsonb_build_object('name', t.name)
      FROM deleted AS t
)
SELECT count(*) AS deleted
  FROM deleted
