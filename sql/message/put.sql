-- Store a message under its own id: replace the message with this id, or append a new one.
--
-- Returns: the message, and is_watched as conversation/append_message does. One row of NULLs if the
--   conversation has no further seq; no row if the conversation does not exist.
-- Locks: the conversation row, then the message, until the end of the transaction.
-- Index: primary keys, message_id_idx.
-- Notes: ON CONFLICT reads the index itself and not the snapshot of the statement, so it finds a message
--   that was committed while this statement waited for the lock. seq and thumb of a replaced message do not
--   change. It leaves the search index until the next maintenance run. No usage is recorded, since it adds
--   no round. Without :created_at a new message has the time of the update.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id, c.created_at, c.last_seq,
           greatest(c.updated_at, statement_timestamp()) AS updated_at,
           statement_timestamp() AS read_at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       FOR NO KEY UPDATE
), stored AS (
    INSERT INTO asyncsvc.message AS m (
           tenant_id, conversation_id, seq, id, role, content, payload, reference, dialog_id,
           conversation_created_at, created_at)
    SELECT l.tenant_id, l.id, l.last_seq + 1, :message_id, :role, :content, :payload::text::jsonb,
           :reference::text::jsonb, l.dialog_id, l.created_at
         , l.updated_at                         --? !created_at
         , :created_at                          --? created_at
      FROM locked AS l
     WHERE l.last_seq < 2147483647
    ON CONFLICT (tenant_id, id, conversation_id) WHERE id IS NOT NULL DO UPDATE
       SET role = excluded.role,
           content = excluded.content,
           payload = excluded.payload,
           reference = excluded.reference,
           is_indexed = false
         , created_at = excluded.created_at     --? created_at
    RETURNING m.seq, m.id, m.role, m.content, m.payload, m.reference, m.thumb, m.created_at
), conversation_updated AS (
    UPDATE asyncsvc.conversation AS c
       SET last_seq = greatest(l.last_seq, s.seq),
           updated_at = l.updated_at
      FROM locked AS l
     CROSS JOIN stored AS s
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
    RETURNING c.updated_at, CASE WHEN s.seq > l.last_seq THEN l.read_at END AS appended_at
), recency_updated AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = u.updated_at,
           appended_at = coalesce(u.appended_at, r.appended_at)
      FROM conversation_updated AS u
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
), watched AS (
    SELECT true AS is_watched                   --? !notify
    --? notify {
    SELECT pg_notify('asyncsvc_new_messages', encode(sha256(convert_to(w.tenant_id, 'UTF8')), 'hex'))
           IS NULL AS is_watched
    --? }
      FROM asyncsvc.watched_tenant AS w
     WHERE w.tenant_id = :tenant_id
       AND w.expires_at > statement_timestamp()
)
SELECT s.seq, s.id, s.role, s.content, s.payload::text AS payload, s.reference::text AS reference,
       s.thumb, s.created_at, coalesce(w.is_watched, false) AS is_watched
  FROM locked AS l
  LEFT JOIN stored AS s ON true
  LEFT JOIN watched AS w ON true
