-- Changes a message and returns it as it is now; nothing when it is not there.
--
-- :patch is a JSON object of the columns to set; one that is not named keeps its value, and JSON
-- null sets NULL. The conversation counts as updated. The message leaves the search index, until
-- maintenance comes by.
--
-- Locks: the conversation's row first, then the message's. Index: the primary keys.
WITH locked AS MATERIALIZED (
    SELECT p.patch
      FROM asyncsvc.conversation AS c, (SELECT :patch::text::jsonb AS patch) AS p
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
       FOR NO KEY UPDATE OF c
), updated AS (
    UPDATE asyncsvc.message AS m
       SET content = CASE WHEN l.patch ? 'content' THEN l.patch ->> 'content' ELSE m.content END,
           payload = CASE WHEN l.patch ? 'payload' THEN l.patch -> 'payload' ELSE m.payload END,
           reference = CASE WHEN l.patch ? 'reference' THEN nullif(l.patch -> 'reference', 'null') ELSE m.reference END,
           is_indexed = false
      FROM locked AS l
     WHERE m.tenant_id = :tenant_id
       AND m.conversation_id = :id
       AND m.seq = :seq
    RETURNING m.seq, m.role, m.content, m.payload, m.reference, m.thumb, m.created_at
), touched AS (
    UPDATE asyncsvc.conversation AS c
       SET updated_at = greatest(c.updated_at, statement_timestamp())
      FROM updated AS m
     WHERE c.tenant_id = :tenant_id
       AND c.id = :id
    RETURNING c.updated_at
), noted AS (
    UPDATE asyncsvc.conversation_recency AS r
       SET updated_at = t.updated_at
      FROM touched AS t
     WHERE r.tenant_id = :tenant_id
       AND r.id = :id
)
SELECT m.seq, m.role, m.content, m.payload::text AS payload, m.reference::text AS reference,
       m.thumb, m.created_at
  FROM updated AS m
