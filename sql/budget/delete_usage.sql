-- Delete the usage of a budget, or of the ended windows of all budgets of a tenant.
--
-- Returns: deleted, the number of rows.
-- Locks: the deleted rows.
-- Index: the primary keys. Without :id it reads all budgets of the tenant and their usage.
-- Notes: the usage of a window stays for 1 hour after its end, for reads that began before. The usage of
--   deleted budgets is deleted too. Each zone has few windows, which are computed once.
WITH
--? !id {
windows AS MATERIALIZED (
    SELECT b.grain, b.zone, w.window_start
      FROM (SELECT DISTINCT b.grain, b.zone
              FROM asyncsvc.budget AS b
             WHERE b.tenant_id = :tenant_id) AS b
     CROSS JOIN LATERAL asyncsvc.budget_window_v1(
           statement_timestamp() - interval '1 hour', b.grain, b.zone) AS w
), kept AS MATERIALIZED (
    SELECT b.id, coalesce(b.since, w.window_start) AS window_start
      FROM asyncsvc.budget AS b
      JOIN windows AS w ON w.grain = b.grain AND w.zone = b.zone
     WHERE b.tenant_id = :tenant_id
),
--? }
deleted AS (
    DELETE FROM asyncsvc.budget_usage AS u
     WHERE u.tenant_id = :tenant_id
       AND u.budget_id = :id                                        --? id
       --? !id {
       AND NOT EXISTS (
           SELECT FROM kept AS k
            WHERE k.id = u.budget_id
              AND u.window_start >= k.window_start)
       --? }
    RETURNING u.budget_id
)
SELECT count(*) AS deleted
  FROM deleted AS d
