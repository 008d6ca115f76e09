-- Create the tables of the plain append: conversations, with their key and an index by creation, and
-- messages. The schema is the first of the connection's search path.
CREATE TABLE IF NOT EXISTS conversation (
    tenant_id  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    name       text,
    source     text COLLATE "C",
    round      integer NOT NULL,
    tokens     bigint NOT NULL,
    duration   bigint NOT NULL,
    thumb_up   integer NOT NULL,
    last_seq   integer NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 85);

CREATE INDEX IF NOT EXISTS conversation_created_idx ON conversation (tenant_id, dialog_id, created_at, id);

CREATE TABLE IF NOT EXISTS message (
    tenant_id       text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    seq             integer NOT NULL,
    role            text NOT NULL,
    content         text NOT NULL,
    payload         jsonb NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversation (tenant_id, id)
        ON DELETE CASCADE
);

-- The table of the bare insert.
CREATE TABLE IF NOT EXISTS insertion (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    content    text NOT NULL,
    created_at timestamptz NOT NULL
);
