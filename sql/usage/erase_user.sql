-- Replace the id of a person by :erased_id in the sums of a tenant.
--
-- Returns: erased, the number of changed rows.
-- Locks: the changed rows.
-- Index: usage_quarter_hour_user_idx, usage_user_month_pkey and usage_user_pkey.
-- Timeout: none. The number of a person's quarter hours has no bound.
-- Notes: the caller locks the tenant's usage (usage/lock) and rolls up its ledger, which names persons too,
--   in earlier statements. In the ledger the name cannot be replaced, since a roll-up looks for other
--   conversations of the person. Counts do not change. Buckets name no person.
WITH quarter_hours AS (
    UPDATE asyncsvc.usage_quarter_hour AS q
       SET user_id = :erased_id
     WHERE q.tenant_id = :tenant_id
       AND q.user_id = :user_id
    RETURNING 1 AS one
), months AS (
    UPDATE asyncsvc.usage_user_month AS m
       SET user_id = :erased_id
     WHERE m.tenant_id = :tenant_id
       AND m.user_id = :user_id
    RETURNING 1 AS one
), bounds AS (
    UPDATE asyncsvc.usage_user AS u
       SET user_id = :erased_id
     WHERE u.tenant_id = :tenant_id
       AND u.user_id = :user_id
    RETURNING 1 AS one
)
SELECT (SELECT count(*) FROM quarter_hours) + (SELECT count(*) FROM months)
       + (SELECT count(*) FROM bounds) AS erased
