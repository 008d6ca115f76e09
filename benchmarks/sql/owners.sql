-- Return the sessions of a tenant with their users.
SELECT c.user_id, c.id
  FROM asyncsvc.conversation AS c
 WHERE c.tenant_id = $1
 ORDER BY c.id
