-- Usage by the time it happened.
CREATE TABLE ledger (
    tenant_id text COLLATE "C" NOT NULL,
    quarter   timestamptz NOT NULL,
    dialog_id text COLLATE "C" NOT NULL,
    source    text COLLATE "C",
    tokens    bigint NOT NULL,
    rounds    integer NOT NULL
);
CREATE INDEX ON ledger (tenant_id, quarter);
