-- Read id and name of one person's newest conversations, in a dialog or in all dialogs.
--
-- Returns: id, name. At most :limit rows, newest first.
-- Locks: none.
-- Index: conversation_exp_user_idx, from the person's newest conversation; conversations in other
--   dialogs are filtered out.
-- Read replica: a list may be slightly stale.
SELECT c.id, c.name
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = :tenant_id
   AND c.dialog_id = :dialog_id    --? dialog_id
   AND c.exp_user_id = :exp_user_id
 ORDER BY c.created_at DESC, c.id DESC
 LIMIT :limit
