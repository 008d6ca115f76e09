-- Copy a tenant's conversations into Chainlit's tables. Each user of the tenant is a user there.
INSERT INTO "User" (id, metadata, identifier)
SELECT DISTINCT $1 || '-' || c.user_id, '{}'::jsonb, $1 || '-' || c.user_id
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO "Thread" (id, name, metadata, "userId", "createdAt", "updatedAt")
SELECT c.id, c.name, '{}', $1 || '-' || c.user_id, c.created_at AT TIME ZONE 'UTC',
       c.updated_at AT TIME ZONE 'UTC'
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1;

INSERT INTO "Step" (id, "threadId", input, metadata, name, output, type, "startTime", "endTime")
SELECT m.conversation_id || '-' || m.seq, m.conversation_id, '', '{}', m.role, m.content,
       (m.role || '_message')::"StepType", t.at, t.at
  FROM asyncsvc.message AS m
 CROSS JOIN LATERAL (
       SELECT m.created_at AT TIME ZONE 'UTC' + m.seq * interval '1 millisecond') AS t (at)
 WHERE m.tenant_id = $1
 ORDER BY m.conversation_id, m.seq
