-- The lower bound of a write: insert 1 row durably.
INSERT INTO insertion (content, created_at)
VALUES ($1, statement_timestamp())
RETURNING id
