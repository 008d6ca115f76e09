-- Delete usage of a tenant: the ledger, the declared zones and up to :batch_size rows of each kind of sums.
--
-- Returns: deleted, the number of rows.
-- Locks: the deleted rows. The UTC row of usage_zone waits for a roll-up or recount.
-- Index: usage_ledger_tenant_idx and the keys of the sums.
-- Timeout: none. A recount that holds the row may read all conversations of the tenant.
-- Notes: a roll-up that runs meanwhile may store sums again, so the caller repeats until 0 rows are left.
WITH zones AS (
    DELETE FROM asyncsvc.usage_zone AS z
     WHERE z.tenant_id = :tenant_id
    RETURNING 1 AS one
), drained AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     WHERE u.tenant_id = :tenant_id
    RETURNING 1 AS one
), buckets AS (
    DELETE FROM asyncsvc.usage_bucket AS b
     WHERE b.tenant_id = :tenant_id
       AND (b.zone, b.basis, b.grain, b.dialog_key, b.source_key, b.bucket) IN (
               SELECT n.zone, n.basis, n.grain, n.dialog_key, n.source_key, n.bucket
                 FROM asyncsvc.usage_bucket AS n
                WHERE n.tenant_id = :tenant_id
                LIMIT :batch_size
           )
    RETURNING 1 AS one
), quarter_hours AS (
    DELETE FROM asyncsvc.usage_quarter_hour AS q
     WHERE q.tenant_id = :tenant_id
       AND q.quarter_hour <= (
               SELECT max(n.quarter_hour)
                 FROM (
                   SELECT n.quarter_hour
                     FROM asyncsvc.usage_quarter_hour AS n
                    WHERE n.tenant_id = :tenant_id
                    ORDER BY n.quarter_hour
                    LIMIT :batch_size
                 ) AS n
           )
    RETURNING 1 AS one
)
SELECT (SELECT count(*) FROM zones) + (SELECT count(*) FROM drained)
       + (SELECT count(*) FROM buckets) + (SELECT count(*) FROM quarter_hours) AS deleted
