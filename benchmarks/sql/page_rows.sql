-- The rows of a page of a dialog, newest first, with all columns of the library's list.
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.exp_user_id, c.name, c.source, c.version_title,
       c.metadata, c.dsl, c.errors, c.round, c.tokens, c.duration, c.thumb_up, c.thumb_down, c.last_seq,
       c.created_at, c.updated_at
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
   AND c.dialog_id = $2
 ORDER BY c.created_at DESC, c.id DESC
 LIMIT $3
