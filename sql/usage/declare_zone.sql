-- Has buckets kept for a tenant in a zone, and in UTC, and returns which of the two are new. Buckets of
-- a new zone are to be counted in the same transaction (usage/recount); the first of UTC are not,
-- since whatever happened before it lies in the ledger still.
--
-- Locks: the new rows; it waits for another session that declares the same. Index: the primary key.
INSERT INTO asyncsvc.usage_zone AS z (tenant_id, zone)
SELECT DISTINCT :tenant_id, n.zone
  FROM unnest(ARRAY['UTC', :tz]) AS n (zone)
 ORDER BY n.zone
ON CONFLICT (tenant_id, zone) DO NOTHING
RETURNING z.zone
