-- Record that a tenant is deleted from a schema.
DELETE FROM bench.filled AS f WHERE f.place = $1 AND f.tenant = $2
