-- The bytes of the messages and of their search index.
SELECT pg_relation_size('asyncsvc.message') AS messages,
       pg_relation_size('asyncsvc.message_search_idx') AS index
