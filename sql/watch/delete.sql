-- Delete the row by which the appends of a tenant send notifications.
--
-- Returns: deleted, 1 or 0.
-- Locks: the row.
-- Index: the primary key.
-- Notes: a session that still watches the tenant inserts the row again.
WITH removed AS (
    DELETE FROM asyncsvc.watched_tenant AS w
     WHERE w.tenant_id = :tenant_id
    RETURNING w.tenant_id
)
SELECT count(*) AS deleted
  FROM removed AS r
