-- The usage ledger: one row per change since the last roll-up.
CREATE TABLE ledger (
    tenant_id  text COLLATE "C" NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    source     text COLLATE "C",
    user_id    text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    at         timestamptz,
    tokens     bigint NOT NULL,
    rounds     integer NOT NULL
);
CREATE INDEX ON ledger (tenant_id);
