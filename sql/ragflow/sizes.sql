-- The next conversations behind :after, in the order of their ids, and how many bytes the long
-- texts of each are: so a page is cut before it is read, and one long row is no surprise.
--
-- It runs on the source, MySQL or PostgreSQL; see ragflow/count for the tenant and the collations.
-- Locks: none. Index: the primary key, from :after on.
SELECT c.id,
       coalesce(octet_length(c.message), 0)
       + coalesce(octet_length(c.reference), 0)                      --? reference
       + coalesce(octet_length(c.dsl), 0)                            --? dsl
       + coalesce(octet_length(c.errors), 0)                         --? errors
       AS bytes
  FROM api_4_conversation AS c
  LEFT JOIN dialog AS d                                              --? tenant_id
         ON d.id = c.dialog_id                                       --? tenant_id, !mixed
         ON CONVERT(d.id USING utf8mb4) COLLATE utf8mb4_bin          --? tenant_id, mixed
            = CONVERT(c.dialog_id USING utf8mb4) COLLATE utf8mb4_bin --? tenant_id, mixed
  LEFT JOIN user_canvas AS a                                         --? tenant_id, agents
         ON a.id = c.dialog_id                                       --? tenant_id, agents, !mixed
         ON CONVERT(a.id USING utf8mb4) COLLATE utf8mb4_bin          --? tenant_id, agents, mixed
            = CONVERT(c.dialog_id USING utf8mb4) COLLATE utf8mb4_bin --? tenant_id, agents, mixed
 WHERE 1 = 1
   AND c.id > :after                                                 --? after
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
 LIMIT :limit
