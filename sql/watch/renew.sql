-- Make the appends of a tenant send notifications for :lease.
--
-- Returns: tenant_id.
-- Locks: the row of the tenant, until the end of the transaction. Appends only read it.
-- Index: the primary key. A renewal is a HOT update.
-- Idempotent: a second execution has the same effect as one.
-- Notes: watchers in several processes share the row. The renewal of one never shortens that of another,
--   unless that is more than 1 day later: then it is older than a change of the server's clock.
INSERT INTO asyncsvc.watched_tenant AS w (tenant_id, expires_at)
VALUES (:tenant_id, statement_timestamp() + :lease::interval)
ON CONFLICT (tenant_id) DO UPDATE
   SET expires_at = CASE WHEN w.expires_at > excluded.expires_at
                          AND w.expires_at < excluded.expires_at + interval '1 day'
                         THEN w.expires_at ELSE excluded.expires_at END
RETURNING w.tenant_id
