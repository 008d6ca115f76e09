-- Delete the sums by person and month of a tenant, about :batch_size rows.
--
-- Returns: deleted, the number of rows. A batch ends with a whole person.
-- Locks: the deleted rows.
-- Index: usage_user_month_pkey.
WITH deleted AS (
    DELETE FROM asyncsvc.usage_user_month AS m
     WHERE m.tenant_id = :tenant_id
       AND m.user_id <= (
               SELECT max(n.user_id)
                 FROM (
                   SELECT n.user_id
                     FROM asyncsvc.usage_user_month AS n
                    WHERE n.tenant_id = :tenant_id
                    ORDER BY n.user_id
                    LIMIT :batch_size
                 ) AS n
           )
    RETURNING m.user_id
)
SELECT count(*) AS deleted
  FROM deleted
