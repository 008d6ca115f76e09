-- A whole conversation as the server's JSON.
SELECT row_to_json(c)::text,
       (SELECT json_agg(json_build_object(
                   'seq', m.seq, 'role', m.role, 'content', m.content, 'payload', m.payload,
                   'reference', m.reference, 'thumb', m.thumb, 'created_at', m.created_at)
                   ORDER BY m.seq)::text
          FROM asyncsvc.message AS m
         WHERE m.tenant_id = $1
           AND m.conversation_id = $2)
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
   AND c.id = $2
