-- Notes that a tenant is stored in a place.
INSERT INTO bench.filled (place, tenant) VALUES ($1, $2)
