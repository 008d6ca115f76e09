-- Count the rows of the usage ledger, of all tenants, up to :limit.
--
-- Returns: ledger_rows, the number of rows that are not rolled up; at most :limit.
-- Locks: none.
-- Index: none; it reads at most :limit rows.
SELECT count(*) AS ledger_rows
  FROM (SELECT u.tenant_id
          FROM asyncsvc.usage_ledger AS u
         LIMIT :limit) AS u
