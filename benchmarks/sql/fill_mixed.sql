-- Store one large tenant and many small ones, with all messages in the search index. $1 is the name of the
-- large tenant, $2 the number of its conversations, $3 the number of small tenants, $4 the number of
-- conversations of each. The search indexes are built at the end, which is faster than 2 million inserts.
SET session_replication_role = replica;

CREATE TABLE bench.index_definition AS
SELECT pg_get_indexdef(i.oid) AS command
  FROM pg_class AS i
 WHERE i.relnamespace = 'asyncsvc'::regnamespace
   AND i.relname IN ('message_search_idx', 'conversation_title_search_idx');

DROP INDEX asyncsvc.message_search_idx, asyncsvc.conversation_title_search_idx;

CREATE TABLE bench.generated AS
SELECT t.name AS tenant_id, c.*
  FROM (SELECT $1::text AS name, $2::int AS conversations
         UNION ALL
        SELECT 's' || n, $4::int FROM generate_series(1, $3::int) AS g (n)) AS t
 CROSS JOIN LATERAL bench.conversation(t.name, 1000000000, t.conversations, 2) AS c;

INSERT INTO asyncsvc.conversation (
       tenant_id, id, dialog_id, user_id, name, source, round, tokens, duration, last_seq, created_at,
       updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.user_id, c.name, c.source, c.round, c.tokens, c.duration, 2, c.created_at,
       c.updated_at
  FROM bench.generated AS c;

INSERT INTO asyncsvc.message (
       tenant_id, conversation_id, seq, role, content, payload, created_at, dialog_id,
       conversation_created_at, is_indexed)
SELECT c.tenant_id, c.id, m.seq, m.role, m.content, '{}', c.created_at, c.dialog_id, c.created_at, true
  FROM bench.generated AS c
 CROSS JOIN bench.message(c.id, 2) AS m;

INSERT INTO asyncsvc.conversation_title (
       tenant_id, conversation_id, name, dialog_id, conversation_created_at, is_indexed)
SELECT c.tenant_id, c.id, c.name, c.dialog_id, c.created_at, true
  FROM bench.generated AS c;

INSERT INTO asyncsvc.conversation_recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM bench.generated AS c;

INSERT INTO asyncsvc.usage_ledger (
       tenant_id, dialog_id, source, user_id, created_at, at, conversations, tokens, duration, rounds)
SELECT c.tenant_id, c.dialog_id, c.source, c.user_id, c.created_at, c.created_at, 1, c.tokens, c.duration, c.round
  FROM bench.generated AS c;

DROP TABLE bench.generated;

SET maintenance_work_mem = '1GB';

DO $body$
DECLARE
    command text;
BEGIN
    FOR command IN SELECT d.command FROM bench.index_definition AS d LOOP
        EXECUTE command;
    END LOOP;
END
$body$;

SET maintenance_work_mem = DEFAULT;

SET session_replication_role = DEFAULT
