-- Declare the zone :tz and UTC for a tenant, so that buckets are stored in them.
--
-- Returns: zone, the new zones; no row if both were declared, or with if_used if the tenant has no rows in
--   the usage ledger.
-- Locks: the new rows; it waits for another session that declares the same zone.
-- Index: the primary key.
-- Notes: the caller must count the buckets of a new zone in the same transaction (usage/recount).
--   UTC as the first zone needs no recount: all earlier changes are still in the ledger.
INSERT INTO asyncsvc.usage_zone AS z (tenant_id, zone)
SELECT DISTINCT :tenant_id, n.zone
  FROM unnest(ARRAY['UTC', :tz]) AS n (zone)
 WHERE EXISTS (                                               --? if_used
       SELECT FROM asyncsvc.usage_ledger AS u                 --? if_used
        WHERE u.tenant_id = :tenant_id)                       --? if_used
 ORDER BY n.zone
ON CONFLICT (tenant_id, zone) DO NOTHING
RETURNING z.zone
