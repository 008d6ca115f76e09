-- Revokes a tenant's tokens from this instant on, but for those of :keep, and notes each in the
-- audit. It returns how many it found, and how many of them it ended. A token that is being rotated
-- at this moment has a successor that this statement cannot see, and may be over by the time that
-- its row is free: whoever wants none to be left runs it until it finds none.
--
-- Locks: the rows. Index: api_token_tenant_idx.
WITH found AS (
    SELECT t.id
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
       AND t.id <> ALL (:keep::text[])
       AND t.kind = :kind                       --? kind
       AND t.dialog_id = :dialog_id             --? dialog_id
       AND t.dialog_id IS NULL                  --? dialog_id_is_null
       AND coalesce(t.last_used_at, t.created_at) < :unused_since --? unused_since
), revoked AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp(),
           revoked_reason = :reason
     WHERE t.tenant_id = :tenant_id
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
       AND t.id <> ALL (:keep::text[])
       AND t.kind = :kind                       --? kind
       AND t.dialog_id = :dialog_id             --? dialog_id
       AND t.dialog_id IS NULL                  --? dialog_id_is_null
       AND coalesce(t.last_used_at, t.created_at) < :unused_since --? unused_since
    RETURNING t.tenant_id, t.id, t.revoked_at, t.revoked_reason
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'revoke', :actor, t.revoked_at,
           jsonb_build_object('reason', t.revoked_reason)
      FROM revoked AS t
)
SELECT (SELECT count(*) FROM found) AS found,
       (SELECT count(*) FROM revoked) AS revoked
