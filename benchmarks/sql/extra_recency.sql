-- The list by recent activity with a separate table, so that updates of conversations stay HOT.
CREATE TABLE recency (
    tenant_id  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, id) REFERENCES conversation (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 85);
CREATE INDEX ON recency (tenant_id, dialog_id, updated_at, id);
INSERT INTO recency (tenant_id, id, dialog_id, updated_at)
SELECT c.tenant_id, c.id, c.dialog_id, c.updated_at
  FROM conversation AS c;
