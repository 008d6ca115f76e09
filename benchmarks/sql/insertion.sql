-- The floor of every write: one row, durable when it returns.
INSERT INTO insertion (content, created_at)
VALUES ($1, statement_timestamp())
RETURNING id
