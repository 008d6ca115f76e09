-- The idempotency keys of appends.
CREATE TABLE append_key (
    tenant_id       text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    last_seq        integer NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, key),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversation (tenant_id, id)
        ON DELETE CASCADE
);
CREATE INDEX ON append_key (created_at);
