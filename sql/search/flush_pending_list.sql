-- Move the entries on the pending lists of both search indexes into their trees.
--
-- Returns: pages, the number of pages removed from the lists; 0 if they were empty.
-- Locks: the list of each index. It waits for another session that flushes the same list; no append,
--   edit or search waits for it.
-- Index: message_search_idx, conversation_title_search_idx.
-- Timeout: none. A list can have 64 MB.
-- Notes: the role must own the tables. PostgreSQL adds new entries of a GIN index to an unsorted list,
--   which each search reads completely. Interrupted maintenance may leave entries on it.
SELECT coalesce(sum(gin_clean_pending_list(i.oid)), 0)::bigint AS pages
  FROM pg_catalog.pg_class AS i
 WHERE i.relnamespace = 'asyncsvc'::regnamespace
   AND i.relname IN ('message_search_idx', 'conversation_title_search_idx')
