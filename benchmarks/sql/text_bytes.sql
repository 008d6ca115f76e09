-- The bytes of what the messages of a tenant say.
SELECT sum(octet_length(m.content))
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = $1
