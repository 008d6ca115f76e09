-- Has the server sort into the search index what the folds before have put into it, which until then
-- lies in a list that each search reads whole. It returns how many pages of that list it emptied, and
-- 0 at once when it was empty. A list that was left by a fold that was broken off is emptied, too.
--
-- Only the owner of the tables may.
--
-- Locks: the list's own. It waits for another session that empties it, as long as that takes, and
-- nobody waits for it but one that would empty it, too. Index: both that search.
SELECT coalesce(sum(gin_clean_pending_list(i.oid)), 0)::bigint AS pages
  FROM pg_catalog.pg_class AS i
 WHERE i.relnamespace = 'asyncsvc'::regnamespace
   AND i.relname IN ('message_search_idx', 'conversation_title_search_idx')
