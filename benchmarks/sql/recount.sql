-- The usage by creation, counted from the conversations. The library's statistics must be equal.
SELECT date_trunc('day', c.created_at, 'UTC') AS dt, count(*) AS conversations,
       count(DISTINCT c.user_id) AS users, sum(c.tokens)::bigint AS tokens,
       sum(c.round)::bigint AS rounds, sum(c.thumb_up)::bigint AS thumb_up
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1 AND c.source = 'api' AND c.created_at >= $2 AND c.created_at < $3
 GROUP BY 1
 ORDER BY 1
