-- Count the rows that maintenance has not processed yet, of all tenants, each kind up to :limit.
--
-- Returns: ledger_rows, messages and titles, each at most :limit; age, the seconds since the begin of the
--   last run that processed all rows, or since the first migration; is_restricted, whether row-level
--   security hides rows from this role.
-- Locks: none.
-- Index: message_unindexed_idx and conversation_title_unindexed_idx, at most :limit entries of each; it
--   reads at most :limit rows of the usage ledger.
-- Notes: it reads all tenants. Without an order it could read a whole table, if the statistics say that
--   many of its rows match.
SELECT (SELECT count(*)
          FROM (SELECT u.tenant_id
                  FROM asyncsvc.usage_ledger AS u
                 LIMIT :limit) AS u) AS ledger_rows,
       (SELECT count(*)
          FROM (SELECT m.tenant_id
                  FROM asyncsvc.message AS m
                 WHERE NOT m.is_indexed
                 ORDER BY m.tenant_id
                 LIMIT :limit) AS m) AS messages,
       (SELECT count(*)
          FROM (SELECT t.tenant_id
                  FROM asyncsvc.conversation_title AS t
                 WHERE NOT t.is_indexed
                 ORDER BY t.tenant_id
                 LIMIT :limit) AS t) AS titles,
       extract(epoch FROM statement_timestamp() - coalesce(
           (SELECT w.processed_until FROM asyncsvc.maintenance AS w),
           (SELECT min(v.applied_at) FROM asyncsvc.migration AS v)))::double precision AS age,
       row_security_active('asyncsvc.usage_ledger') AS is_restricted
