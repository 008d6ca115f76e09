-- The list by recent activity: its index ends HOT updates, since each append changes updated_at.
CREATE INDEX ON conversation (tenant_id, dialog_id, updated_at, id);
