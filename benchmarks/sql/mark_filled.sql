-- Record that a tenant is stored in a schema.
INSERT INTO bench.filled (place, tenant) VALUES ($1, $2)
