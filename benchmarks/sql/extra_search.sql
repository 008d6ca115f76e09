-- The search for substrings: an append inserts the message into a small partial index of messages that
-- maintenance has not indexed.
ALTER TABLE message
    ADD COLUMN dialog_id text COLLATE "C",
    ADD COLUMN conversation_created_at timestamptz,
    ADD COLUMN is_indexed boolean NOT NULL DEFAULT false;
CREATE INDEX ON message (tenant_id, conversation_created_at, conversation_id, seq)
    WHERE NOT is_indexed;
