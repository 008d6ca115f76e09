-- Whether a tenant is stored in a schema.
SELECT EXISTS (SELECT FROM bench.filled AS f WHERE f.place = $1 AND f.tenant = $2)
