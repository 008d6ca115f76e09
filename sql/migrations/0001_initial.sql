-- Create the tables of conversations, messages, usage and API tokens, and the search index.
--
-- The primary key of each table of a tenant starts with tenant_id, so that it can be distributed by
-- tenant. api_token is the exception: a token is looked up before its tenant is known. Ids are text of
-- the caller, compared byte by byte (COLLATE "C").

-- One row a conversation. Each append updates it, and changes no indexed column: the new row version is
-- a HOT update on the same page, for which the fillfactor leaves room. round, tokens, duration and
-- last_seq never decrease; the deletion of messages does not change them. duration is in microseconds,
-- since sums of integers are exact.
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

-- conversation/get_list ordered by creation, and its total.
CREATE INDEX conversation_created_idx
    ON asyncsvc.conversation (tenant_id, dialog_id, created_at, id);

-- conversation/get_list of one user, erasure of a user, usage statistics by creation.
CREATE INDEX conversation_user_idx
    ON asyncsvc.conversation (tenant_id, user_id, created_at) INCLUDE (dialog_id, source);

-- Usage statistics by creation of all dialogs, searches of a tenant in the order of creation, and the
-- weeks that have conversations.
CREATE INDEX conversation_tenant_created_idx
    ON asyncsvc.conversation (tenant_id, created_at, id);

-- conversation/get_names, erasure of a user.
CREATE INDEX conversation_exp_user_idx
    ON asyncsvc.conversation (tenant_id, exp_user_id, created_at, id)
    WHERE exp_user_id IS NOT NULL;

-- The update time of each conversation, for lists ordered by it. An index on conversation.updated_at
-- would make each append write to all indexes of the conversation; here it writes to two. dialog_id and
-- updated_at are copies.
CREATE TABLE asyncsvc.conversation_recency (
    tenant_id  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, id)
        REFERENCES asyncsvc.conversation (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 85);

-- conversation/get_list and purges ordered by update time.
CREATE INDEX conversation_recency_updated_idx
    ON asyncsvc.conversation_recency (tenant_id, dialog_id, updated_at, id);

-- One row a message, so the cost of an append does not depend on the length of the conversation. seq is
-- assigned under the lock of the conversation row: ordered, and never used twice. dialog_id and
-- conversation_created_at are copies for the search index. It contains the rows with is_indexed;
-- maintenance sets that flag on new and changed messages.
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
    dialog_id       text COLLATE "C" NOT NULL,
    conversation_created_at timestamptz NOT NULL,
    is_indexed      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, conversation_id)
        REFERENCES asyncsvc.conversation (tenant_id, id) ON DELETE CASCADE
);

-- The searched text of a conversation beside its messages: its id and its name. In the conversation row
-- each append would write to the search index.
CREATE TABLE asyncsvc.conversation_title (
    tenant_id       text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    name            text,
    dialog_id       text COLLATE "C" NOT NULL,
    conversation_created_at timestamptz NOT NULL,
    is_indexed      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, conversation_id),
    FOREIGN KEY (tenant_id, conversation_id)
        REFERENCES asyncsvc.conversation (tenant_id, id) ON DELETE CASCADE
);

-- The functions of the search index; docs/search.md explains the searches. The index stores their
-- results, so a function is never changed: its successor has a new name and a new index.

-- Return the grams of a text in lower case: each character, each pair of characters, and each 3
-- characters in a row below U+2E80. Alphabets are below, with few letters; Chinese, Japanese, Korean and
-- emoji are above. A text contains all grams of each of its substrings.
-- Replacing (.) by \1 U+0001 \1 leaves each pair between two U+0001. A U+0001 in the text splits a gram
-- into smaller ones, which are grams of the text too.
CREATE FUNCTION asyncsvc.search_grams_v1(content text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
DECLARE
    folded  text := lower(content COLLATE "default") COLLATE "C";
    letters text := regexp_replace(folded, '[^\x01-\u2e7f]+', E'\x01', 'g');
BEGIN
    RETURN array_remove(string_to_array(
           regexp_replace(folded, '(.)', E'\\1\x01', 'g')
        || regexp_replace(folded, '(.)', E'\\1\x01\\1', 'g') || E'\x01'
        || regexp_replace(letters, '(...)', E'\\1\x01', 'g') || E'\x01'
        || regexp_replace(substr(letters, 2), '(...)', E'\\1\x01', 'g') || E'\x01'
        || regexp_replace(substr(letters, 3), '(...)', E'\\1\x01', 'g'), E'\x01'), '');
END
$body$;

-- Return the most selective grams of a keyword: 3 letters, and pairs with a character that is not a
-- letter; without these, pairs of letters; without these, single characters. The index would otherwise
-- read the long list of each common pair, although a longer gram finds the same rows. A keyword of only
-- U+0001 has no grams, so the search reads all messages.
CREATE FUNCTION asyncsvc.search_needed_v1(keywords text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT coalesce(array_agg(g.gram), '{}')
      FROM (
        SELECT g.gram, rank() OVER (ORDER BY length(g.gram)
                   + (g.gram ~ '^(.[^\x01-\u2e7f]|[^\x01-\u2e7f].)$')::integer DESC) AS place
          FROM unnest(asyncsvc.search_grams_v1(keywords)) AS g (gram)
         GROUP BY g.gram
      ) AS g
     WHERE g.place = 1
$body$;

-- Return the number of the week of an instant, from 1970-01-01 on; and the first instant of a week.
CREATE FUNCTION asyncsvc.search_week_v1(at timestamptz) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT floor(extract(epoch FROM at AT TIME ZONE 'UTC') / 604800)::integer
$body$;

CREATE FUNCTION asyncsvc.search_week_begin_v1(week integer) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT (timestamp '1970-01-01' + week * interval '168 hours') AT TIME ZONE 'UTC'
$body$;

-- Return the index term of a dialog, and the index terms of the last `weeks` weeks up to `week`, of a
-- tenant. No gram begins with U+0001.
CREATE FUNCTION asyncsvc.search_dialog_v1(tenant_id text, dialog_id text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT E'\x01d' || dialog_id || E'\x01' || tenant_id
$body$;

CREATE FUNCTION asyncsvc.search_weeks_v1(tenant_id text, week integer, weeks integer)
    RETURNS text[] LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT ARRAY(SELECT E'\x01w' || w || E'\x01' || tenant_id
                   FROM generate_series(week - weeks + 1, week) AS w)
$body$;

-- Return the index terms of a text: its grams, its dialog and its week. The declared cost is higher than
-- the real one, so that the planner always prefers the index to computing this for each row. An SQL
-- function would lose its cost when it is inlined, so it is PL/pgSQL.
CREATE FUNCTION asyncsvc.search_terms_v1(
    tenant_id text, dialog_id text, conversation_created_at timestamptz, content text)
    RETURNS text[] LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 1000 AS $body$
BEGIN
    RETURN asyncsvc.search_grams_v1(content)
        || asyncsvc.search_dialog_v1(tenant_id, dialog_id)
        || asyncsvc.search_weeks_v1(
               tenant_id, asyncsvc.search_week_v1(conversation_created_at), 1);
END
$body$;

-- The search index. Only maintenance writes to it, many entries at a time: the server collects up to
-- 64 MB in the pending list before it merges them.
CREATE INDEX message_search_idx ON asyncsvc.message USING gin ((asyncsvc.search_terms_v1(
    tenant_id, dialog_id, conversation_created_at, content)) COLLATE "C")
    WITH (gin_pending_list_limit = 65536) WHERE is_indexed;
CREATE INDEX conversation_title_search_idx ON asyncsvc.conversation_title USING gin ((asyncsvc.search_terms_v1(
    tenant_id, dialog_id, conversation_created_at,
    conversation_id || E'\x01' || coalesce(name, ''))) COLLATE "C")
    WITH (gin_pending_list_limit = 65536) WHERE is_indexed;

-- The rows that are not in the search index yet, for searches and for indexing.
CREATE INDEX message_unindexed_idx
    ON asyncsvc.message (tenant_id, conversation_created_at, conversation_id, seq)
    WHERE NOT is_indexed;
CREATE INDEX conversation_title_unindexed_idx
    ON asyncsvc.conversation_title (tenant_id, conversation_created_at, conversation_id)
    WHERE NOT is_indexed;

-- The answer of each append with an idempotency key, so that a replay returns the same answer.
-- body_hash is the SHA-256 of the turn: the same key with another turn is a conflict. A key is deleted
-- with its conversation, or by maintenance after Settings.key_lifetime.
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

-- Expiry of keys. New keys are the youngest, so an insert goes to the last page.
CREATE INDEX append_key_created_idx ON asyncsvc.append_key (created_at);

-- Usage is kept in two books. "created" has each conversation on the instant of its creation, as it
-- is now: deleting it takes it out, moving it carries it along. "activity" has what happened on the
-- quarter of an hour in which it did, and nothing is ever taken from it: deleting a conversation
-- changes no bill. Every zone's offset has been a multiple of a quarter of an hour since 1972, so
-- that days are exact in each. Durations are in microseconds.
--
-- The ledger has what the sums below do not have yet. Each statement that changes a conversation or
-- its counters adds a row by which they change, with the conversation's dialog, source, user and
-- creation as they are under its lock; what does not count as activity has no quarter_hour. It only ever
-- grows, at its end, so no two appends meet in it: a counter that they all update would make them
-- queue. usage/fold takes the rows out and adds them to the sums, in one transaction. So
-- at any moment and in any snapshot sums and ledger together are exact.
CREATE TABLE asyncsvc.usage_ledger (
    tenant_id  text COLLATE "C" NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    source     text COLLATE "C",
    user_id    text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    quarter_hour    timestamptz,
    token_id   text COLLATE "C",
    pv         integer NOT NULL DEFAULT 0,
    tokens     bigint NOT NULL DEFAULT 0,
    duration   bigint NOT NULL DEFAULT 0,
    rounds     integer NOT NULL DEFAULT 0,
    thumb_up   integer NOT NULL DEFAULT 0,
    thumb_down integer NOT NULL DEFAULT 0
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Whatever reads the ledger reads a tenant's part of it, which is small or about to be. Without
-- statistics on the tenant the planner takes this index always; with those of an empty moment it
-- would read the file from end to end, over the rows that are gone and not yet vacuumed.
CREATE INDEX usage_ledger_tenant_idx ON asyncsvc.usage_ledger (tenant_id);
ALTER TABLE asyncsvc.usage_ledger ALTER COLUMN tenant_id SET STATISTICS 0;

-- The zones in which a tenant's buckets are kept; UTC is one, from the first fold on. Its row is
-- what a fold locks, so that one folds at a time and others pass by.
CREATE TABLE asyncsvc.usage_zone (
    tenant_id text COLLATE "C" NOT NULL,
    zone      text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, zone)
);

-- The sums of both books by local day, week (from Monday) and month in each of those zones: for all
-- dialogs and sources together and for each alone, with the distinct users counted, so that a year is
-- a few hundred rows however much happened in it. `bucket` is the local date on which it begins,
-- since a local midnight may come twice. dialog_key is '*' for all or '=' and the dialog;
-- source_key is so too, and '-' for no source.
CREATE TABLE asyncsvc.usage_bucket (
    tenant_id  text COLLATE "C" NOT NULL,
    zone       text COLLATE "C" NOT NULL,
    basis       text COLLATE "C" NOT NULL CHECK (basis IN ('creation', 'activity')),
    grain      text COLLATE "C" NOT NULL CHECK (grain IN ('day', 'week', 'month')),
    dialog_key text COLLATE "C" NOT NULL,
    source_key text COLLATE "C" NOT NULL,
    bucket     date NOT NULL,
    pv         bigint NOT NULL,
    uv         bigint NOT NULL,
    tokens     bigint NOT NULL,
    duration   bigint NOT NULL,
    rounds     bigint NOT NULL,
    thumb_up   bigint NOT NULL,
    thumb_down bigint NOT NULL,
    PRIMARY KEY (tenant_id, zone, basis, grain, dialog_key, source_key, bucket)
) WITH (fillfactor = 70);

-- The sums of the activity by quarter of an hour, dialog, source and token: kept for ever, for hours,
-- for tokens, and for zones that are declared later.
CREATE TABLE asyncsvc.usage_quarter_hour (
    tenant_id  text COLLATE "C" NOT NULL,
    quarter_hour    timestamptz NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    source     text COLLATE "C",
    token_id   text COLLATE "C",
    pv         bigint NOT NULL,
    tokens     bigint NOT NULL,
    duration   bigint NOT NULL,
    rounds     bigint NOT NULL,
    thumb_up   bigint NOT NULL,
    thumb_down bigint NOT NULL,
    CONSTRAINT usage_quarter_hour_key
        UNIQUE NULLS NOT DISTINCT (tenant_id, quarter_hour, dialog_id, source, token_id)
) WITH (fillfactor = 85);

-- Whether a clock goes back within 25 hours of an instant: a date may come twice there, up to a day
-- apart.
CREATE FUNCTION asyncsvc.clock_goes_back(near timestamptz, zone text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (near + interval '25 hours') AT TIME ZONE zone
           - (near - interval '25 hours') AT TIME ZONE zone < interval '50 hours'
$$;

-- Which buckets of `size` (day, week, month) in a zone lie whole within a range of instants: those
-- that begin from first_whole to last_whole, local times both; none where first_whole is later. A
-- bucket at an end of the range is whole when the instant beyond that end is in another one. Where a
-- clock goes back near an end, two buckets there are not taken for whole. What of the range is in
-- buckets before first_whole lies before head_until, what is in buckets after last_whole not before
-- tail_since; either is NULL where there is nothing of the kind.
CREATE FUNCTION asyncsvc.whole_buckets(since timestamptz, until timestamptz, size text, zone text)
RETURNS TABLE (
    first_whole timestamp, last_whole timestamp, head_until timestamptz, tail_since timestamptz)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 1 AS $$
BEGIN
    RETURN QUERY
    SELECT w.first_whole, w.last_whole,
           CASE WHEN w.first_whole > b.first THEN
               w.first_whole AT TIME ZONE zone + CASE
                   WHEN asyncsvc.clock_goes_back(w.first_whole AT TIME ZONE zone, zone)
                   THEN interval '25 hours' ELSE '0' END END,
           CASE WHEN w.last_whole < b.last THEN
               (w.last_whole + b.step) AT TIME ZONE zone - CASE
                   WHEN asyncsvc.clock_goes_back((w.last_whole + b.step) AT TIME ZONE zone, zone)
                   THEN interval '25 hours' ELSE '0' END END
      FROM (SELECT ('1 ' || size)::interval AS step,
                   date_trunc(size, since AT TIME ZONE zone) AS first,
                   date_trunc(size, (since - interval '1 microsecond') AT TIME ZONE zone) AS before,
                   date_trunc(size, (until - interval '1 microsecond') AT TIME ZONE zone) AS last,
                   date_trunc(size, until AT TIME ZONE zone) AS after) AS b
     CROSS JOIN LATERAL (
           SELECT b.first + b.step * CASE WHEN asyncsvc.clock_goes_back(since, zone) THEN 2
                                          WHEN b.before = b.first THEN 1 ELSE 0 END AS first_whole,
                  b.last - b.step * CASE WHEN asyncsvc.clock_goes_back(until, zone) THEN 2
                                         WHEN b.after = b.last THEN 1 ELSE 0 END AS last_whole) AS w;
END
$$;

-- The labels that date_trunc gives to the buckets of `size` (hour, day, week, month) in a zone that have
-- an instant in a range. Days, weeks and months advance on the local calendar, so that a day of 23 or
-- 25 hours is one step; hours advance from the very start of the range to its very end by the half
-- hour, because some zones shift by half an hour, and some come twice. A range that is a day which its
-- zone left out has none.
--
-- It is no SQL function, as the one above, so that the planner takes it as it is: with their texts
-- written out a statement takes longer to plan than to run, and has a plan for each range.
CREATE FUNCTION asyncsvc.bucket_labels(since timestamptz, until timestamptz, size text, zone text)
RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100 AS $$
DECLARE
    last CONSTANT timestamptz = until - interval '1 microsecond';
BEGIN
    IF since >= until THEN
        RETURN;
    ELSIF size = 'hour' THEN
        RETURN QUERY
        SELECT date_trunc('hour', s.at, zone)
          FROM (SELECT generate_series(since, last, interval '30 minutes')
                 UNION ALL
                SELECT last) AS s (at);
    ELSE
        RETURN QUERY
        SELECT s.at AT TIME ZONE zone
          FROM generate_series(date_trunc(size, since AT TIME ZONE zone), last AT TIME ZONE zone,
                               ('1 ' || size)::interval) AS s (at);
    END IF;
END
$$;

-- API tokens: the hash of the secret, never the secret. pepper_version 0 is SHA-256, n is HMAC-SHA-256
-- with pepper n. hint is the beginning of the secret, for people. A token is retiring while revoked_at is
-- in the future. last_used_at has no index, so that its update is a HOT update. No foreign key refers to
-- a token, so that no lock on another table delays it.
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

-- Lists, revocation and deletion of a tenant's tokens.
CREATE INDEX api_token_tenant_idx ON asyncsvc.api_token (tenant_id, created_at, id);

-- Families of rotated tokens. It allows at most one successor under concurrent rotation.
CREATE UNIQUE INDEX api_token_rotated_from_idx
    ON asyncsvc.api_token (rotated_from) WHERE rotated_from IS NOT NULL;

-- The actions on the tokens of a tenant, with their actors. The statement that acts inserts the row.
-- Rows outlive their tokens, and contain no secret and no hash.
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

-- token_audit/get_list of one token.
CREATE INDEX token_audit_token_idx ON asyncsvc.token_audit (tenant_id, token_id, at, id);
