-- Read one page of the budgets of a tenant, in the order of their ids.
--
-- Returns: at most :limit budgets after :after_id.
-- Locks: none.
-- Index: the primary key, all budgets of the tenant or of :subject; budget_id_key with :id; the primary key
--   of api_token with :subject, which may be any token of a family.
SELECT b.id, b.scope, nullif(b.subject, '') AS subject, b.metric, b.max_used AS limit, b.grain AS window,
       b.zone AS tz, b.since, b.created_at, b.updated_at
  FROM asyncsvc.budget AS b
 WHERE b.tenant_id = :tenant_id
   AND b.id = :id                               --? id
   AND b.scope = :scope                         --? scope
   --? subject {
   AND b.subject IN (:subject, (SELECT t.family_id
                                  FROM asyncsvc.api_token AS t
                                 WHERE (t.tenant_id = :tenant_id) IS TRUE
                                   AND t.id = :subject))
   AND (b.scope = 'token' OR b.subject = :subject)
   --? }
   AND b.subject = ''                           --? subject_is_null
   AND b.id > :after_id                         --? after_id
 ORDER BY b.id
 LIMIT :limit
