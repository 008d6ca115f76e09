-- Delete tokens of a tenant, by id or up to :batch_size, and record each deletion in the audit, which is
-- kept.
--
-- Returns: deleted, the number of tokens; with :hashes_apart also their ids.
-- Locks: the token rows in the order of their ids, then their hashes, until the end of the transaction.
--   The order prevents deadlocks between statements that change many tokens.
-- Index: the primary key and api_token_hash_token_idx; for :batch_size first api_token_tenant_idx. See
--   docs/project/sql-files.md, Lookups by key.
-- Notes: a hash that a concurrent record_use has replaced is found by its token.
--   With :hashes_apart api_token/delete_hashes deletes the hashes.
WITH locked AS MATERIALIZED (
    SELECT t.id
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (:ids::text[])                             --? ids
       --? batch_size {
       AND t.id = ANY (ARRAY(
               SELECT n.id
                 FROM asyncsvc.api_token AS n
                WHERE n.tenant_id = :tenant_id
                  AND n.created_at >= '-infinity'
                ORDER BY n.created_at, n.id
                LIMIT :batch_size
           ))
       --? }
     ORDER BY t.id
       FOR UPDATE
), deleted AS (
    DELETE FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (ARRAY(SELECT l.id FROM locked AS l))
    RETURNING t.tenant_id, t.id, t.name
--? !hashes_apart {
), deleted_hashes AS (
    DELETE FROM asyncsvc.api_token_hash AS h
     WHERE h.tenant_id = :tenant_id
       AND h.token_id = ANY (ARRAY(SELECT d.id FROM deleted AS d))
--? }
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT d.tenant_id, d.id, 'delete', :actor, statement_timestamp(),
           jsonb_build_object('name', d.name)
      FROM deleted AS d
)
SELECT count(*) AS deleted
       , coalesce(array_agg(d.id), '{}') AS ids    --? hashes_apart
  FROM deleted AS d
