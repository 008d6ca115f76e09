-- Read each budget that applies to a token, a user and a dialog, with the usage of its present window.
--
-- Returns: the budgets, the tightest first.
-- Locks: none.
-- Index: the primary keys of api_token, budget and budget_usage; usage_ledger_tenant_idx, all ledger rows of
--   the tenant for each metric and window.
-- Notes: asyncsvc.budget_status_v1 has the order, which the scan of a function keeps. Its parameters are
--   values: Citus would run it on the node of a table that is beside it, where it finds no tables.
--   api_token/verify has read the family; otherwise :token_id is any token of it.
SELECT s.budget_id, s.scope, s.subject, s.is_default, s.metric, s.used, s.max_used AS limit,
       greatest(s.max_used - s.used, 0) AS remaining, s.grain AS window, s.zone AS tz,
       s.window_start AS starts_at, s.window_end AS resets_at, s.is_alerted
  FROM asyncsvc.budget_status_v1(
       :tenant_id,
       :family_id, NULL,         --? family_id
       NULL, :token_id,          --? token_id, !family_id
       NULL, NULL,               --? !token_id, !family_id
       :user_id, :dialog_id, statement_timestamp(), NULL) AS s
