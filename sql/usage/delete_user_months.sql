-- Delete the sums by person and month of a tenant, about :batch_size rows, and the bounds of these persons.
--
-- Returns: deleted, the number of months. A batch ends with a whole person.
-- Locks: the deleted rows.
-- Index: usage_user_month_pkey and usage_user_pkey.
WITH last AS MATERIALIZED (
    SELECT max(n.user_id) AS user_id
      FROM (
        SELECT n.user_id
          FROM asyncsvc.usage_user_month AS n
         WHERE n.tenant_id = :tenant_id
         ORDER BY n.user_id
         LIMIT :batch_size
      ) AS n
), bounds AS (
    DELETE FROM asyncsvc.usage_user AS u
     WHERE u.tenant_id = :tenant_id
       AND u.user_id <= (SELECT l.user_id FROM last AS l)
), deleted AS (
    DELETE FROM asyncsvc.usage_user_month AS m
     WHERE m.tenant_id = :tenant_id
       AND m.user_id <= (SELECT l.user_id FROM last AS l)
    RETURNING m.user_id
)
SELECT count(*) AS deleted
  FROM deleted
