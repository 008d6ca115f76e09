-- Read the next API tokens of the source, in the order of tenant and secret.
--
-- Returns: the cells of each row. The date is text, as in ragflow/conversations.
-- Locks: none.
-- Index: the primary key. The keyset condition does not compare pairs, because MySQL would not use an
--   index for that.
-- Notes: runs on the source, MySQL or PostgreSQL. MySQL compares a tenant by the index and then by
--   bytes, because `T1` equals `t1` in most collations.
SELECT t.tenant_id, t.token
     , t.dialog_id                                                 --? dialog_id
     , t.source                                                    --? source
     , t.beta                                                      --? beta
     , t.name                                                      --? name
     , t.status                                                    --? status
     , t.create_time                                               --? create_time
     , CAST(t.create_date AS CHAR) AS create_date                  --? create_date, mysql
     , to_json(t.create_date) #>> '{}' AS create_date              --? create_date, postgresql
  FROM api_token AS t
 WHERE 1 = 1
   AND t.tenant_id = :tenant_id                                    --? tenant_id
   AND CAST(CONVERT(t.tenant_id USING utf8mb4) AS BINARY)          --? tenant_id, mysql
       = :tenant_id                                                --? tenant_id, mysql
   AND (t.tenant_id > :after_tenant                                --? after_tenant, after_token
        OR t.tenant_id = :after_tenant AND t.token > :after_token) --? after_tenant, after_token
 ORDER BY t.tenant_id, t.token
 LIMIT :limit
