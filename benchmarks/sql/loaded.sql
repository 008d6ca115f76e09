-- What a contender of the import stored in the tables of the search path, to compare.
SELECT count(*) AS messages, count(DISTINCT conversation_id) AS conversations,
       sum(length(content)) AS characters, sum(hashtextextended(content, seq)) AS digest
  FROM message
