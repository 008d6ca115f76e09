-- The conversations from :first to :last, in the order of their ids, each with the tenants that its
-- dialog and its agent belong to; both are NULL where neither is there any more. MySQL would round
-- a float to six digits; a sum it does not. Dates are text, ISO 8601 whatever the session says: a
-- server holds years that no driver can read.
--
-- It runs on the source, MySQL or PostgreSQL; see ragflow/count for the tenant and the collations.
-- Locks: none. Index: the primary keys.
SELECT c.id, c.dialog_id, c.user_id, c.message,
       d.tenant_id AS dialog_tenant_id
     , a.user_id AS agent_tenant_id                                  --? agents
     , c.name                                                        --? name
     , c.exp_user_id                                                 --? exp_user_id
     , c.reference                                                   --? reference
     , c.tokens                                                      --? tokens
     , c.source                                                      --? source
     , c.dsl                                                         --? dsl
     , c.duration + 0e0 AS duration                                  --? duration
     , c.round                                                       --? round
     , c.thumb_up                                                    --? thumb_up
     , c.errors                                                      --? errors
     , c.version_title                                               --? version_title
     , c.create_time                                                 --? create_time
     , CAST(c.create_date AS CHAR) AS create_date                    --? create_date, mysql
     , to_json(c.create_date) #>> '{}' AS create_date                --? create_date, postgresql
     , c.update_time                                                 --? update_time
     , CAST(c.update_date AS CHAR) AS update_date                    --? update_date, mysql
     , to_json(c.update_date) #>> '{}' AS update_date                --? update_date, postgresql
  FROM api_4_conversation AS c
  LEFT JOIN dialog AS d
         ON d.id = c.dialog_id                                       --? !mixed
         ON CONVERT(d.id USING utf8mb4) COLLATE utf8mb4_bin          --? mixed
            = CONVERT(c.dialog_id USING utf8mb4) COLLATE utf8mb4_bin --? mixed
  LEFT JOIN user_canvas AS a                                         --? agents
         ON a.id = c.dialog_id                                       --? agents, !mixed
         ON CONVERT(a.id USING utf8mb4) COLLATE utf8mb4_bin          --? agents, mixed
            = CONVERT(c.dialog_id USING utf8mb4) COLLATE utf8mb4_bin --? agents, mixed
 WHERE c.id >= :first
   AND c.id <= :last
   AND CASE WHEN d.tenant_id <> ''                                   --? tenant_id
            THEN d.tenant_id = :tenant_id                            --? tenant_id, !mysql
            THEN CAST(CONVERT(d.tenant_id USING utf8mb4) AS BINARY)  --? tenant_id, mysql
                 = :tenant_id                                        --? tenant_id, mysql
            WHEN a.user_id <> ''                                     --? tenant_id, agents
            THEN a.user_id = :tenant_id                              --? tenant_id, agents, !mysql
            THEN CAST(CONVERT(a.user_id USING utf8mb4) AS BINARY)    --? tenant_id, agents, mysql
                 = :tenant_id                                        --? tenant_id, agents, mysql
            ELSE TRUE                                                --? tenant_id, orphans
            ELSE FALSE                                               --? tenant_id, !orphans
        END                                                          --? tenant_id
 ORDER BY c.id
