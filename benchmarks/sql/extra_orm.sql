-- The other indexes of the library's conversations: the ORM's tables have the same.
CREATE INDEX IF NOT EXISTS conversation_updated_idx
    ON conversation (tenant_id, dialog_id, updated_at, id);
CREATE INDEX IF NOT EXISTS conversation_user_idx ON conversation (tenant_id, user_id, created_at);
