-- How many conversations there are to read, behind :after and of one tenant where these are given.
--
-- It runs on the source, MySQL or PostgreSQL. A tenant has what belongs to a dialog or an agent of
-- its own and, with orphans, what belongs to none that is there. `mixed` compares ids whose columns
-- have different collations, which costs the index.
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
   AND (d.tenant_id = :tenant_id                                     --? tenant_id
        OR a.user_id = :tenant_id                                    --? tenant_id, agents
        OR d.id IS NULL                                              --? tenant_id, orphans
           AND a.id IS NULL                                          --? tenant_id, orphans, agents
       )                                                             --? tenant_id
