-- Conversations with their messages and append keys, and API tokens.
--
-- Every table of a tenant has tenant_id first in its primary key, so that it can be distributed
-- by tenant. The tokens are the exception: a token is looked up before its tenant is known.
-- Ids are the caller's own text, compared byte by byte (COLLATE "C"); nothing is ordered by them
-- but ties.

-- One row a conversation. Appends update it and write to each of its indexes, so it has few, and its
-- pages keep room for the new row version. Rounds, tokens, duration and last_seq only grow: deleting
-- messages takes nothing from them. Duration is in whole microseconds, since sums of fractions never agree twice.
CREATE TABLE asyncsvc.conversation (
    tenant_id     text COLLATE "C" NOT NULL,
    id            text COLLATE "C" NOT NULL,
    dialog_id     text COLLATE "C" NOT NULL,
    user_id       text COLLATE "C" NOT NULL DEFAULT '',
    exp_user_id   text COLLATE "C",
    name          text,
    source        text COLLATE "C",
    version_title text,
    metadata      jsonb,
    dsl           jsonb,
    errors        text,
    round         integer NOT NULL DEFAULT 0,
    tokens        bigint NOT NULL DEFAULT 0,
    duration      bigint NOT NULL DEFAULT 0,
    thumb_up      integer NOT NULL DEFAULT 0,
    thumb_down    integer NOT NULL DEFAULT 0,
    last_seq      integer NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL,
    updated_at    timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 85);

-- conversation/get_list by creation, and its total
CREATE INDEX conversation_created_idx
    ON asyncsvc.conversation (tenant_id, dialog_id, created_at, id);

-- conversation/get_list by recent activity. Because of it no append is a HOT update: each writes an
-- entry into every index of this table, so add none lightly.
CREATE INDEX conversation_updated_idx
    ON asyncsvc.conversation (tenant_id, dialog_id, updated_at, id);

-- conversation/get_list of one user, conversation/delete_by_user, usage/stats_by_created
CREATE INDEX conversation_user_idx
    ON asyncsvc.conversation (tenant_id, user_id, created_at) INCLUDE (dialog_id, source);

-- conversation/get_names, conversation/delete_by_user. Only rows that name somebody are in it.
CREATE INDEX conversation_exp_user_idx
    ON asyncsvc.conversation (tenant_id, exp_user_id, created_at, id)
    WHERE exp_user_id IS NOT NULL;

-- One row a message, so that an append costs the same however long the conversation is.
-- seq is handed out under the conversation's row lock: ordered, and never used twice.
CREATE TABLE asyncsvc.message (
    tenant_id       text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    seq             integer NOT NULL,
    role            text NOT NULL,
    content         text NOT NULL,
    payload         jsonb NOT NULL,
    reference       jsonb,
    thumb           smallint CHECK (thumb IN (-1, 1)),
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, conversation_id)
        REFERENCES asyncsvc.conversation (tenant_id, id) ON DELETE CASCADE
);

-- What an append with an idempotency key answered, so that a replay gets the same answer.
-- body_hash is the SHA-256 of the turn: the same key with another turn is a conflict. A key goes with
-- its conversation, or when it is old and maintenance comes by.
CREATE TABLE asyncsvc.append_key (
    tenant_id       text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    key             text COLLATE "C" NOT NULL,
    body_hash       bytea NOT NULL,
    first_seq       integer NOT NULL,
    last_seq        integer NOT NULL,
    round           integer NOT NULL,
    created_at      timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, conversation_id, key),
    FOREIGN KEY (tenant_id, conversation_id)
        REFERENCES asyncsvc.conversation (tenant_id, id) ON DELETE CASCADE
);

-- append_key/find_old. Keys come in the order of time, so a new entry goes to the end of it.
CREATE INDEX append_key_created_idx ON asyncsvc.append_key (created_at);

-- What happened, booked on the quarter of an hour in which it did, by dialog, source and token: each
-- statement that creates a conversation, appends a turn or judges a message adds a row. Every zone's
-- offset is a multiple of that quarter, so days are exact in each. Nothing is ever taken away:
-- deleting a conversation changes no bill. Duration is in microseconds.
CREATE TABLE asyncsvc.usage_ledger (
    tenant_id  text COLLATE "C" NOT NULL,
    quarter    timestamptz NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    source     text COLLATE "C",
    token_id   text COLLATE "C",
    pv         integer NOT NULL DEFAULT 0,
    tokens     bigint NOT NULL DEFAULT 0,
    duration   bigint NOT NULL DEFAULT 0,
    rounds     integer NOT NULL DEFAULT 0,
    thumb_up   integer NOT NULL DEFAULT 0,
    thumb_down integer NOT NULL DEFAULT 0
);

-- usage/stats_by_activity
CREATE INDEX usage_ledger_quarter_idx ON asyncsvc.usage_ledger (tenant_id, quarter);

-- API tokens: a hash of the secret, never the secret. pepper_version tells how it was hashed: 0 is
-- SHA-256, n is HMAC-SHA-256 by the pepper of this version. hint is the secret's beginning, for
-- people. A token is retiring while revoked_at lies ahead. last_used_at is stamped by verify and
-- must stay without an index, so that the stamp touches the row alone. Nothing refers to a token by
-- a foreign key, so that no lock of another table's ever makes a stamp wait.
CREATE TABLE asyncsvc.api_token (
    id             text COLLATE "C" NOT NULL PRIMARY KEY,
    tenant_id      text COLLATE "C" NOT NULL,
    name           text NOT NULL,
    token_hash     bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    pepper_version smallint NOT NULL,
    hint           text NOT NULL,
    kind           text NOT NULL CHECK (kind IN ('api', 'beta')),
    scopes         text[] NOT NULL,
    dialog_id      text COLLATE "C",
    source         text COLLATE "C",
    metadata       jsonb NOT NULL,
    created_at     timestamptz NOT NULL,
    created_by     text,
    expires_at     timestamptz,
    revoked_at     timestamptz,
    revoked_reason text,
    last_used_at   timestamptz,
    rotated_from   text COLLATE "C"
) WITH (fillfactor = 85);

-- api_token/get_list, api_token/revoke_all, api_token/delete_by_tenant_id
CREATE INDEX api_token_tenant_idx ON asyncsvc.api_token (tenant_id, created_at, id);

-- api_token/revoke_family; and the last word when two rotate a token at once
CREATE UNIQUE INDEX api_token_rotated_from_idx
    ON asyncsvc.api_token (rotated_from) WHERE rotated_from IS NOT NULL;

-- What was done to the tokens of a tenant, by whom: written by the statement that does it, kept when
-- the tokens are gone, and never changed. It holds no secret and no hash.
CREATE TABLE asyncsvc.token_audit (
    tenant_id text COLLATE "C" NOT NULL,
    id        bigint GENERATED ALWAYS AS IDENTITY,
    token_id  text COLLATE "C" NOT NULL,
    action    text NOT NULL,
    actor     text,
    at        timestamptz NOT NULL,
    detail    jsonb NOT NULL,
    PRIMARY KEY (tenant_id, at, id)
);

-- token_audit/get_list of one token
CREATE INDEX token_audit_token_idx ON asyncsvc.token_audit (tenant_id, token_id, at, id);
