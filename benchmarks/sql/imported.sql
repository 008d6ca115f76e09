-- The counts and the digest of an imported tenant, from the tables of the search path.
SELECT count(*) AS messages, count(DISTINCT conversation_id) AS conversations,
       sum(length(content)) AS characters, sum(hashtextextended(content, seq)) AS digest
  FROM message
 WHERE tenant_id = $1
