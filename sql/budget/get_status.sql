-- Read each budget that applies to a token, a user and a dialog, with the usage of its present window.
--
-- Returns: the budgets, the tightest first.
-- Locks: none.
-- Index: the primary keys of budget and budget_usage; usage_ledger_tenant_idx, all ledger rows of the
--   tenant for each budget.
-- Notes: asyncsvc.budget_status_v1, which is inlined, reads sums and ledger in one snapshot, so usage that a
--   roll-up moves meanwhile is counted once. api_token/verify has read the family; otherwise :token_id is any
--   token of it. Spent budgets come first, since a share that is nearly 1 may be rounded to 1.
SELECT s.budget_id, s.scope, s.subject, s.is_default, s.metric, s.used, s.max_used AS limit,
       greatest(s.max_used - s.used, 0) AS remaining, s.grain AS window, s.zone AS tz,
       s.window_start AS starts_at, s.window_end AS resets_at, s.is_alerted
  FROM asyncsvc.budget_status_v1(
       :tenant_id,
       :family_id                                                                   --? family_id
       --? token_id, !family_id {
       coalesce((SELECT t.family_id
                   FROM asyncsvc.api_token AS t
                  WHERE t.tenant_id = :tenant_id
                    AND t.id = :token_id), :token_id)
       --? }
       NULL                                                                         --? !token_id, !family_id
       , :user_id, :dialog_id, statement_timestamp()) AS s
 ORDER BY greatest(s.used, 0) >= s.max_used DESC, s.share DESC, s.window_end DESC NULLS FIRST, s.budget_id
