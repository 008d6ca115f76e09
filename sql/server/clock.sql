-- What time it is by the server's clock, as this statement begins: ages are counted back from it,
-- and no client's clock has a say.
--
-- Locks: none. Index: none.
SELECT statement_timestamp() AS now
