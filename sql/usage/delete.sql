-- Delete ledger, buckets, zones, keys and audit of the usage of a tenant that has no conversations.
--
-- Returns: deleted, the number of rows. 0 if the tenant has a conversation.
-- Locks: the deleted rows.
-- Index: the primary key of conversation, usage_ledger_tenant_idx and the keys of the sums.
-- Timeout: none. The number of ledger rows has no bound.
-- Notes: it is one statement, so totals and statistics stay exact if the deletion of the tenant is
--   interrupted. The caller locks the tenant's usage in an earlier statement (usage/lock), so this
--   snapshot includes each roll-up that committed before, and no other roll-up runs.
WITH empty AS MATERIALIZED (
    SELECT :tenant_id::text AS tenant_id
     WHERE NOT EXISTS (
           SELECT FROM asyncsvc.conversation AS c WHERE c.tenant_id = :tenant_id)
), drained AS (
    DELETE FROM asyncsvc.usage_ledger AS u
     USING empty AS e
     WHERE u.tenant_id = :tenant_id
    RETURNING 1 AS one
), buckets AS (
    DELETE FROM asyncsvc.usage_bucket AS b
     USING empty AS e
     WHERE b.tenant_id = :tenant_id
    RETURNING 1 AS one
), audit AS (
    DELETE FROM asyncsvc.usage_audit AS a
     USING empty AS e
     WHERE a.tenant_id = :tenant_id
    RETURNING 1 AS one
), keys AS (
    DELETE FROM asyncsvc.usage_key AS k
     USING empty AS e
     WHERE k.tenant_id = :tenant_id
    RETURNING 1 AS one
), zones AS (
    DELETE FROM asyncsvc.usage_zone AS z
     USING empty AS e
     WHERE z.tenant_id = :tenant_id
    RETURNING 1 AS one
)
SELECT (SELECT count(*) FROM drained) + (SELECT count(*) FROM buckets)
       + (SELECT count(*) FROM audit) + (SELECT count(*) FROM keys)
       + (SELECT count(*) FROM zones) AS deleted
