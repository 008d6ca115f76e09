-- Read one page of the audit of a tenant's budgets and adjustments, newest first.
--
-- Returns: at most :limit events after the position (:after_at, :after_id).
-- Locks: none.
-- Index: the primary key, or usage_audit_budget_idx with :budget_id; backwards from the position.
-- Read replica: a list may be slightly stale.
SELECT e.id, e.tenant_id, e.at, e.action, e.actor, e.budget_id, nullif(e.subject, '') AS subject,
       e.window_start, e.threshold, e.detail::text AS detail
  FROM asyncsvc.usage_audit AS e
 WHERE e.tenant_id = :tenant_id
   AND e.budget_id = :budget_id                 --? budget_id
   AND (e.at, e.id) < (:after_at, :after_id)    --? after_at, after_id
 ORDER BY e.at DESC, e.id DESC
 LIMIT :limit
