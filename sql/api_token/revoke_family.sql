-- Revokes a token, all that it was rotated from and all that were rotated from it, from this
-- instant on, and notes each in the audit. It returns how many tokens the family has, how many of
-- them were not over, and how many of these it ended: none of the first when the tenant has no token
-- of this id. As for api_token/revoke_all, a rotation at this moment has a successor that this cannot
-- see, and may have ended the token that it waited for.
--
-- A link leads to one token at most: LIMIT 1 has the server follow it by its index, whatever it
-- thinks of the tenant's size.
--
-- Locks: the rows. Index: the primary key up the line, api_token_rotated_from_idx down.
WITH RECURSIVE older AS (
    SELECT t.id, t.rotated_from, t.revoked_at
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = :id
     UNION
    SELECT t.id, t.rotated_from, t.revoked_at
      FROM older AS o
     CROSS JOIN LATERAL (
           SELECT t.id, t.rotated_from, t.revoked_at
             FROM asyncsvc.api_token AS t
            WHERE t.tenant_id = :tenant_id
              AND t.id = o.rotated_from
            LIMIT 1) AS t
), newer AS (
    SELECT o.id, o.revoked_at
      FROM older AS o
     UNION
    SELECT t.id, t.revoked_at
      FROM newer AS n
     CROSS JOIN LATERAL (
           SELECT t.id, t.revoked_at
             FROM asyncsvc.api_token AS t
            WHERE t.tenant_id = :tenant_id
              AND t.rotated_from = n.id
            LIMIT 1) AS t
), revoked AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp(),
           revoked_reason = :reason
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (ARRAY(SELECT n.id FROM newer AS n))
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
    RETURNING t.tenant_id, t.id, t.revoked_at, t.revoked_reason
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'revoke', :actor, t.revoked_at,
           jsonb_build_object('reason', t.revoked_reason, 'family_of', :id::text)
      FROM revoked AS t
)
SELECT count(*) AS members,
       count(*) FILTER (WHERE n.revoked_at IS NULL OR n.revoked_at > statement_timestamp()) AS found,
       (SELECT count(*) FROM revoked) AS revoked
  FROM newer AS n
