-- Writes down one migration, in the transaction that applied it.
INSERT INTO asyncsvc.migration (version, name, checksum, applied_at)
VALUES (:version, :name, :checksum, statement_timestamp())
