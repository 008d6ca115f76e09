-- Insert a tenant's dialogs into RAGFlow's table, which its statistics join.
INSERT INTO ragflow.dialog (id, tenant_id)
SELECT $1 || '-d' || n, $1
  FROM generate_series(0, 9) AS g (n)
