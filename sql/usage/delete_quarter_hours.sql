-- Delete the sums by quarter hour of a tenant, about :batch_size rows, the oldest first.
--
-- Returns: deleted, the number of rows. A batch ends with a whole quarter hour.
-- Locks: the deleted rows.
-- Index: usage_quarter_hour_key.
WITH deleted AS (
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
    RETURNING q.quarter_hour
)
SELECT count(*) AS deleted
  FROM deleted
