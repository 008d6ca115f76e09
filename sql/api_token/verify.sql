-- Look a token up by the hash of its secret.
--
-- Returns: the token, with its status by the server's clock, and is_due, whether record_use must
--   write: last_used_at is at least :last_used_resolution old, or the hash has an older pepper than
--   :pepper_version. With budgets also the tightest one that applies; its columns are NULL without one.
-- Locks: none.
-- Index: the unique index on token_hash; with budgets those of budget/get_status.
-- Notes: without :tenant_id, which Citus needs, the lookup finds the tenant. With older peppers the token
--   may be stored under one of the other hashes. They are scalars, because with an array of unknown
--   length the server would not use a generic plan. statement_timestamp() instead of now(): a token
--   also expires inside a long transaction of the caller. At the instant expires_at it is expired.
--   On Citus and under row-level security budget/get_status reads the budgets instead: Citus would run
--   their function on the node of the token, and their rows are invisible until the tenant is set.
SELECT t.id, t.tenant_id, t.name, t.hint, t.kind, t.scopes, t.dialog_id, t.source,
       t.metadata::text AS metadata, t.created_at, t.created_by, t.expires_at, t.revoked_at,
       t.revoked_reason, t.last_used_at, t.rotated_from, t.family_id, t.pepper_version,
       CASE WHEN t.revoked_at <= statement_timestamp() THEN 'revoked'
            WHEN t.expires_at <= statement_timestamp() THEN 'expired'
            WHEN t.revoked_at IS NOT NULL THEN 'retiring'
            ELSE 'active' END AS status,
       t.pepper_version < :pepper_version
       --? last_used_resolution {
       OR coalesce(t.last_used_at, '-infinity')
          <= statement_timestamp() - :last_used_resolution::interval
       --? }
       AS is_due
       --? budgets {
       , s.budget_id, s.scope, s.subject, s.is_default, s.metric, s.used, s.max_used AS limit,
       greatest(s.max_used - s.used, 0) AS remaining, s.grain AS window, s.zone AS tz,
       s.window_start AS starts_at, s.window_end AS resets_at, s.is_alerted
       --? }
  FROM asyncsvc.api_token AS t
  --? budgets {
  LEFT JOIN LATERAL asyncsvc.budget_status_v1(
       t.tenant_id, t.family_id, NULL,
       :user_id,                             --? user_id
       NULL,                                 --? !user_id
       coalesce(t.dialog_id, :dialog_id),    --? dialog_id
       t.dialog_id,                          --? !dialog_id
       statement_timestamp(), 1) AS s ON true
  --? }
 WHERE (t.token_hash = :token_hash
        OR t.token_hash IN (:second_hash, :third_hash, :fourth_hash) --? second_hash, third_hash, fourth_hash
       )
   AND t.tenant_id = :tenant_id    --? tenant_id
   AND t.kind = :kind              --? kind
