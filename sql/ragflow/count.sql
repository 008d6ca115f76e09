-- How many conversations there are to read, behind :after and of one tenant where these are given.
--
-- It runs on the source, MySQL or PostgreSQL. A tenant has what belongs to a dialog of its own, or
-- where there is no such dialog to an agent; with orphans, what belongs to none that is there, too.
-- MySQL compares tenants by their bytes: to its collations `T1` may be `t1`. `mixed` compares ids
-- whose columns have different collations, which costs the index.
-- Locks: none. Index: whichever the server finds the smallest.
SELECT count(*) AS total
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
