-- How many rows the usage ledger has of all tenants, counted to :most: what reads step over, and
-- usage/fold is there for.
--
-- Locks: none. Index: none; it stops at :most.
SELECT count(*) AS rows
  FROM (SELECT u.tenant_id
          FROM asyncsvc.usage_ledger AS u
         LIMIT :most) AS u
