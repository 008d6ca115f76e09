-- The list by recent activity with an index on the conversation itself, as an alternative to the separate
-- table. It prevents HOT updates, because each append changes updated_at.
CREATE INDEX ON conversation (tenant_id, dialog_id, updated_at, id);
