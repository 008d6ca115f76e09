-- Read conversations of the source in the order of their ids: their number, their sizes or their rows.
--
-- Returns: with the flag `count`: total. With `sizes`: id and bytes, the length of the long texts, which
--   limits a page before it is read. With `rows`: the cells, dialog_tenant_id and agent_tenant_id; both
--   are NULL if neither the dialog nor the agent exists.
-- Locks: none.
-- Index: the primary keys; with `count` the smallest index that the server finds. With `mixed` the
--   joins use no index.
-- Notes: runs on the source, MySQL or PostgreSQL. `owners` joins the tables with the tenants.
--   A conversation belongs to the tenant of its dialog, otherwise to that of its agent, otherwise, with
--   `orphans`, to :tenant_id. MySQL compares tenants by bytes, because `T1` equals `t1` in most
--   collations. `mixed` compares ids of columns that have different collations.
--   MySQL rounds a selected float to 6 digits, but not a sum. Dates are ISO 8601 text regardless of
--   the session, because drivers cannot read every year that a server stores.
SELECT
--? count {
       count(*) AS total
--? }
--? sizes {
       c.id,
       coalesce(octet_length(c.message), 0)
       + coalesce(octet_length(c.reference), 0)                       --? reference
       + coalesce(octet_length(c.dsl), 0)                             --? dsl
       + coalesce(octet_length(c.errors), 0)                          --? errors
       AS bytes
--? }
--? rows {
       c.id, c.dialog_id, c.user_id, c.message,
       d.tenant_id AS dialog_tenant_id
     , a.user_id AS agent_tenant_id                                   --? agents
     , c.name                                                         --? name
     , c.exp_user_id                                                  --? exp_user_id
     , c.reference                                                    --? reference
     , c.tokens                                                       --? tokens
     , c.source                                                       --? source
     , c.dsl                                                          --? dsl
     , c.duration + 0e0 AS duration                                   --? duration
     , c.round                                                        --? round
     , c.thumb_up                                                     --? thumb_up
     , c.errors                                                       --? errors
     , c.version_title                                                --? version_title
     , c.create_time                                                  --? create_time
     , CAST(c.create_date AS CHAR) AS create_date                     --? create_date, mysql
     , to_json(c.create_date) #>> '{}' AS create_date                 --? create_date, postgresql
     , c.update_time                                                  --? update_time
     , CAST(c.update_date AS CHAR) AS update_date                     --? update_date, mysql
     , to_json(c.update_date) #>> '{}' AS update_date                 --? update_date, postgresql
--? }
  FROM api_4_conversation AS c
--? owners {
  LEFT JOIN dialog AS d
         ON d.id = c.dialog_id                                        --? !mixed
         ON CONVERT(d.id USING utf8mb4) COLLATE utf8mb4_bin           --? mixed
            = CONVERT(c.dialog_id USING utf8mb4) COLLATE utf8mb4_bin  --? mixed
--? }
--? owners, agents {
  LEFT JOIN user_canvas AS a
         ON a.id = c.dialog_id                                        --? !mixed
         ON CONVERT(a.id USING utf8mb4) COLLATE utf8mb4_bin           --? mixed
            = CONVERT(c.dialog_id USING utf8mb4) COLLATE utf8mb4_bin  --? mixed
--? }
 WHERE 1 = 1
   AND c.id > :after                                                  --? after
   AND c.id <= :last                                                  --? last
--? tenant_id {
   AND coalesce(
         nullif(d.tenant_id, '')                                      --? !mysql
         nullif(CAST(CONVERT(d.tenant_id USING utf8mb4) AS BINARY), '') --? mysql
       , nullif(a.user_id, '')                                        --? agents, !mysql
       , nullif(CAST(CONVERT(a.user_id USING utf8mb4) AS BINARY), '') --? agents, mysql
       , :tenant_id                                                   --? orphans
       ) = :tenant_id
--? }
 ORDER BY c.id                                                        --? !count
 LIMIT :limit                                                         --? limit
