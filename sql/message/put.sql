-- Store a message under its own id: replace or patch the message with this id, or append a new one.
--
-- With :conversation, a JSON object with a member for each column, a missing conversation is created.
--
-- Returns: the message, is_watched as conversation/append_message does, and is_full, whether the
--   conversation has no further seq. The columns of the message are NULL if is_full, or if the merged payload
--   would exceed :max_json_bytes. No row if the conversation does not exist; with :conversation only if it is
--   another user's, or if another session has created it meanwhile.
-- Locks: the conversation row, then the message, until the end of the transaction. With :conversation it
--   waits for a transaction that creates the conversation.
-- Index: primary keys, message_id_idx.
-- Notes: ON CONFLICT reads the index itself and not the snapshot of the statement, so it finds a message
--   that was committed while this statement waited for the lock. seq and thumb of an existing message do not
--   change. It leaves the search index until the next maintenance run. No usage is recorded, since it adds
--   no round. Without :created_at a new message has the time of the update. With patch, an
--   existing message takes no column of the new one, but those of :new_content, :new_payload and
--   :new_reference, and :merge_payload as a merge patch.
WITH locked AS MATERIALIZED (
    SELECT c.tenant_id, c.id, c.dialog_id, c.created_at, c.last_seq,
           greatest(c.updated_at, statement_timestamp()) AS updated_at,
           statement_timestamp() AS read_at
      FROM asyncsvc.conversation AS c
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       AND (c.user_id = :user_id) IS TRUE       --? user_id
       FOR NO KEY UPDATE
--? conversation {
), created AS (
    INSERT INTO asyncsvc.conversation AS c (
           tenant_id, id, dialog_id, user_id, exp_user_id, name, source, version_title, metadata, dsl,
           last_seq, created_at, updated_at)
    SELECT :tenant_id, :id, r.dialog_id, r.user_id, r.exp_user_id, r.name, r.source, r.version_title,
           nullif(r.metadata, 'null'), nullif(r.dsl, 'null'), 1,
           coalesce(r.created_at, statement_timestamp()),
           greatest(r.created_at, statement_timestamp())
      FROM jsonb_to_record(:conversation::text::jsonb) AS r (
           dialog_id text, user_id text, exp_user_id text, name text, source text,
           version_title text, metadata jsonb, dsl jsonb, created_at timestamptz)
     WHERE NOT EXISTS (SELECT FROM locked)
    ON CONFLICT (tenant_id, id) DO NOTHING
    RETURNING c.tenant_id, c.id, c.dialog_id, c.source, c.user_id, c.created_at, c.updated_at, c.name
), title_rows AS (
    INSERT INTO asyncsvc.conversation_title (
           tenant_id, conversation_id, name, dialog_id, conversation_created_at)
    SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at
      FROM created AS c
), recency_rows AS (
    INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at, appended_at)
    SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at, statement_timestamp()
      FROM created AS c
), ledger_rows AS (
    INSERT INTO asyncsvc.usage_ledger (
           tenant_id, dialog_id, source, user_id, created_at, at, conversations)
    SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.created_at, 1
      FROM created AS c
--? }
), target AS (
    SELECT l.tenant_id, l.id, l.dialog_id, l.created_at, l.last_seq, l.updated_at
      FROM locked AS l
    --? conversation {
     UNION ALL
    SELECT c.tenant_id, c.id, c.dialog_id, c.created_at, 0, c.updated_at
      FROM created AS c
    --? }
), stored AS (
    INSERT INTO asyncsvc.message AS m (
           tenant_id, conversation_id, seq, id, role, content, payload, reference, dialog_id,
           conversation_created_at, created_at)
    SELECT t.tenant_id, t.id, t.last_seq + 1, :message_id, :role, :content, :payload::text::jsonb,
           :reference::text::jsonb, t.dialog_id, t.created_at
         , t.updated_at                         --? !created_at
         , :created_at                          --? created_at
      FROM target AS t
     WHERE t.last_seq < 2147483647
    ON CONFLICT (tenant_id, id, conversation_id) WHERE id IS NOT NULL DO UPDATE
       SET is_indexed = false
         --? !patch {
         , role = excluded.role
         , content = excluded.content
         , payload = excluded.payload
         , reference = excluded.reference
         , created_at = excluded.created_at     --? created_at
         --? }
         --? patch {
         , content = :new_content               --? new_content
         , payload = :new_payload::text::jsonb  --? new_payload, !merge_payload
         , payload = asyncsvc.json_merge_v1(m.payload, :merge_payload::text::jsonb)  --? merge_payload
         , reference = :new_reference::text::jsonb  --? new_reference
         --? }
     --? merge_payload, max_json_bytes {
     WHERE octet_length(asyncsvc.json_merge_v1(m.payload, :merge_payload::text::jsonb)::text)
           <= :max_json_bytes
     --? }
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
       s.thumb, s.created_at, coalesce(w.is_watched, false) AS is_watched,
       t.last_seq = 2147483647 AS is_full
  FROM target AS t
  LEFT JOIN stored AS s ON true
  LEFT JOIN watched AS w ON true
