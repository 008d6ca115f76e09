-- What a contender of the import stored in the tables of the search path, to compare. Of each tenant.
SELECT count(*) AS messages, count(DISTINCT conversation_id) AS conversations,
       sum(length(content)) AS characters, sum(hashtextextended(content, seq)) AS digest
  FROM message
 WHERE tenant_id = $1
