-- Id and name of one person's conversations in a dialog, newest first, :limit at most: what a
-- sidebar shows.
--
-- Read replica: as conversation/get_list.
--
-- Locks: none. Index: conversation_exp_user_idx, walked from this person's newest conversation on;
-- those in other dialogs are passed over.
SELECT c.id, c.name
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = :tenant_id
   AND c.dialog_id = :dialog_id
   AND c.exp_user_id = :exp_user_id
 ORDER BY c.created_at DESC, c.id DESC
 LIMIT :limit
