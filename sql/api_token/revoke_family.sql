-- Revokes those of these tokens that are not over, from this instant on, and notes each in the audit,
-- as of the family of :id. It returns how many it ended. As for api_token/revoke_all, a rotation at this
-- moment has a successor that is none of these, and may have ended the token that it waited for.
--
-- Locks: the rows. Index: the primary key.
WITH revoked AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp(),
           revoked_reason = :reason
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (:ids::text[])
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
    RETURNING t.tenant_id, t.id, t.revoked_at, t.revoked_reason
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'revoke', :actor, t.revoked_at,
           jsonb_build_object('reason', t.revoked_reason, 'family_of', :id::text)
      FROM revoked AS t
)
SELECT count(*) AS revoked
  FROM revoked
