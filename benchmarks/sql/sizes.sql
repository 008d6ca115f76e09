-- The bytes of each table with its indexes and TOAST data, and of the search index of messages.
SELECT c.relname AS name, pg_total_relation_size(c.oid) AS bytes
  FROM pg_class AS c
 WHERE c.relnamespace = 'asyncsvc'::regnamespace
   AND (c.relkind = 'r' OR c.relname = 'message_search_idx')
