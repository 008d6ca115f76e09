-- Notes that a tenant is gone.
DELETE FROM bench.filled AS f WHERE f.place = $1 AND f.tenant = $2
