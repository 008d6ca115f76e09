-- Revoke the live tokens of a tenant that match, and record each revocation in the audit.
--
-- Returns: revoked, the number of tokens that it revoked; may_remain, whether it revoked some, or without
--   :ids whether its snapshot has live tokens that match.
-- Locks: the token rows in the order of their ids, until the end of the transaction. The order prevents
--   deadlocks between statements that change many tokens.
-- Index: the primary key. See docs/project/sql-files.md, Lookups by key.
-- Notes: a concurrent rotation adds a successor that the snapshot does not contain, and may end the
--   token for whose lock this statement waits. To leave no live token, repeat until may_remain is false.
WITH locked AS MATERIALIZED (
    SELECT t.id
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (:ids::text[])                                 --? ids
       AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
       AND t.id <> ALL (:keep::text[])                               --? keep
       AND t.kind = :kind                                            --? kind
       AND t.dialog_id = :dialog_id                                  --? dialog_id
       AND t.dialog_id IS NULL                                       --? dialog_id_is_null
       AND coalesce(t.last_used_at, t.created_at) < :unused_since    --? unused_since
     ORDER BY t.id
       FOR NO KEY UPDATE
), revoked AS (
    UPDATE asyncsvc.api_token AS t
       SET revoked_at = statement_timestamp(),
           revoked_reason = :reason
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (ARRAY(SELECT l.id FROM locked AS l))
    RETURNING t.tenant_id, t.id, t.revoked_at, t.revoked_reason
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT t.tenant_id, t.id, 'revoke', :actor, t.revoked_at,
           jsonb_build_object('reason', t.revoked_reason
                              , 'family_of', :family_of::text    --? family_of
                             )
      FROM revoked AS t
)
SELECT r.revoked, r.revoked > 0
       --? !ids {
       OR EXISTS (
           SELECT FROM asyncsvc.api_token AS t
            WHERE t.tenant_id = :tenant_id
              AND (t.revoked_at IS NULL OR t.revoked_at > statement_timestamp())
              AND t.id <> ALL (:keep::text[])                               --? keep
              AND t.kind = :kind                                            --? kind
              AND t.dialog_id = :dialog_id                                  --? dialog_id
              AND t.dialog_id IS NULL                                       --? dialog_id_is_null
              AND coalesce(t.last_used_at, t.created_at) < :unused_since    --? unused_since
       )
       --? }
       AS may_remain
  FROM (SELECT count(*) AS revoked FROM revoked) AS r
