-- The bytes of the contents of a tenant's messages.
SELECT sum(octet_length(m.content))
  FROM asyncsvc.message AS m
 WHERE m.tenant_id = $1
