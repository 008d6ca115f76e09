-- The list by recent activity, by an index on the conversation itself: what the table beside it is
-- instead of. It ends HOT updates, since each append changes updated_at.
CREATE INDEX ON conversation (tenant_id, dialog_id, updated_at, id);
