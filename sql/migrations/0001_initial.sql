-- Create the tables of conversations, messages, usage and API tokens, and the search index.
--
-- The primary key of each table of a tenant starts with tenant_id, so that it can be distributed by
-- tenant. api_token_hash is the exception: it finds the tenant of a token. Ids are text of the caller and
-- are compared byte by byte (COLLATE "C").
--
-- By default autovacuum waits until 20 % of the rows are dead, and tables and indexes grow by that much.
-- Large tables have a lower scale factor: 2 % where an append, indexing or a purge leaves dead rows, 5 %
-- where only the expiry of keys or a roll-up does.

-- Return the JSON text of a JSON value after a merge patch, which is an object. The text of a nested object
-- is not parsed before the end, so the cost is linear in the size of both; with jsonb_object_agg each
-- level would build all values in it again.
CREATE FUNCTION asyncsvc.json_merge_text_v1(target jsonb, patch jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
BEGIN
    RETURN (
        SELECT format('{%s}', string_agg(concat(to_json(key), ':',
                   CASE jsonb_typeof(p.value)
                       WHEN 'object' THEN asyncsvc.json_merge_text_v1(t.value, p.value)
                       ELSE coalesce(p.value, t.value)::text
                   END), ','))
          FROM jsonb_each(CASE jsonb_typeof(target) WHEN 'object' THEN target ELSE '{}' END) AS t
          FULL JOIN jsonb_each(patch) AS p USING (key)
         WHERE p.value IS DISTINCT FROM 'null'
    );
END
$body$;

-- Return a JSON value after a merge patch (RFC 7396): members of an object in the patch replace those of the
-- value, objects are merged, null removes a member. Any other patch replaces the value. A value of NULL is
-- an empty object; the result is NULL for a patch of NULL.
CREATE FUNCTION asyncsvc.json_merge_v1(target jsonb, patch jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
BEGIN
    IF jsonb_typeof(patch) = 'object' THEN
        RETURN asyncsvc.json_merge_text_v1(target, patch);
    END IF;
    RETURN patch;
END
$body$;

-- One row per conversation. Each append updates the row but no indexed column, so the new row version is
-- a HOT update on the same page; the fillfactor reserves space for it. round, tokens, duration and
-- last_seq never decrease; the deletion of messages does not change them. duration is in microseconds,
-- since sums of integers are exact.
-- Scale factor: a purge deletes rows, and an update of a name or of feedback leaves one version.
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
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02);

-- conversation/get_list ordered by creation, and its total.
CREATE INDEX conversation_created_idx
    ON asyncsvc.conversation (tenant_id, dialog_id, created_at, id);

-- conversation/get_list of one user, erasure of a user, usage statistics by creation.
CREATE INDEX conversation_user_idx
    ON asyncsvc.conversation (tenant_id, user_id, created_at) INCLUDE (dialog_id, source);

-- Usage statistics by creation of all dialogs, searches of a tenant in the order of creation, and weeks
-- with conversations.
CREATE INDEX conversation_tenant_created_idx
    ON asyncsvc.conversation (tenant_id, created_at, id);

-- Return the metadata as a member of an object, with the tenant as its name. The declared cost is higher
-- than the real cost, so that the planner prefers the index to a computation for each row. An inlined SQL
-- function would lose its cost, so it is PL/pgSQL.
CREATE FUNCTION asyncsvc.tenant_metadata_v1(tenant_id text, metadata jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE COST 200 AS $body$
BEGIN
    RETURN jsonb_set('{}', ARRAY[tenant_id], metadata);
END
$body$;

-- conversation/get_list by metadata. Each indexed path begins with the tenant, so that a label of other
-- tenants costs nothing. Without fastupdate no list reads new entries of all tenants one by one. An append
-- does not change metadata, unless the turn merges into it.
CREATE INDEX conversation_metadata_idx
    ON asyncsvc.conversation USING gin (asyncsvc.tenant_metadata_v1(tenant_id, metadata) jsonb_path_ops)
    WITH (fastupdate = off) WHERE metadata <> '{}';

-- The planner ignores the statistics of a partial index. Without statistics it takes each label for one of
-- every hundredth conversation, and reads a large tenant for a rare label in the order of the list.
CREATE STATISTICS asyncsvc.conversation_metadata_stat
    ON (asyncsvc.tenant_metadata_v1(tenant_id, metadata)) FROM asyncsvc.conversation;

-- conversation/get_names, erasure of a user.
CREATE INDEX conversation_exp_user_idx
    ON asyncsvc.conversation (tenant_id, exp_user_id, created_at, id)
    WHERE exp_user_id IS NOT NULL;

-- The update time of each conversation, for lists ordered by it. An index on conversation.updated_at
-- would make each append write to all indexes of the conversation. With this table an append writes to
-- 3 indexes. dialog_id and updated_at are copies. appended_at is the server's clock at the last append, for
-- watch/get_new; NULL before the first append. It is never later than updated_at.
-- Scale factor: each append leaves a dead row in the table and in two indexes.
CREATE TABLE asyncsvc.conversation_recency (
    tenant_id  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    updated_at timestamptz NOT NULL,
    appended_at timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, id)
        REFERENCES asyncsvc.conversation (tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.02);

-- conversation/get_list and purges ordered by update time.
CREATE INDEX conversation_recency_updated_idx
    ON asyncsvc.conversation_recency (tenant_id, dialog_id, updated_at, id);
CREATE INDEX conversation_recency_tenant_idx
    ON asyncsvc.conversation_recency (tenant_id, updated_at, id);

-- One row per message, so the cost of an append does not depend on the length of the conversation. seq
-- is assigned under the lock of the conversation row, in order, and never used twice. dialog_id and
-- conversation_created_at are copies for the search index. The search index contains the rows with
-- is_indexed; maintenance sets that flag on new and changed messages. A later export replaces only messages
-- with is_imported. id is an id of the application, unique in the conversation.
-- Scale factors: indexing leaves 1 dead version of each message; after many inserts a vacuum marks the new
-- pages as visible, for scans of indexes alone.
CREATE TABLE asyncsvc.message (
    tenant_id       text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    seq             integer NOT NULL,
    id              text COLLATE "C",
    role            text NOT NULL,
    content         text NOT NULL,
    payload         jsonb NOT NULL,
    reference       jsonb,
    thumb           smallint CHECK (thumb IN (-1, 1)),
    created_at      timestamptz NOT NULL,
    dialog_id       text COLLATE "C" NOT NULL,
    conversation_created_at timestamptz NOT NULL,
    is_indexed      boolean NOT NULL DEFAULT false,
    is_imported     boolean NOT NULL DEFAULT false,
    PRIMARY KEY (tenant_id, conversation_id, seq),
    FOREIGN KEY (tenant_id, conversation_id)
        REFERENCES asyncsvc.conversation (tenant_id, id) ON DELETE CASCADE
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.05);

-- A message by its own id, in a conversation or in a tenant. Messages without one are not in the index.
CREATE UNIQUE INDEX message_id_idx
    ON asyncsvc.message (tenant_id, id, conversation_id) WHERE id IS NOT NULL;

-- The searched text of a conversation in addition to its messages: its id and its name. If the index
-- were on the conversation row, each append would write to it.
-- Scale factor: indexing leaves 1 dead version of each title.
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
) WITH (autovacuum_vacuum_scale_factor = 0.02);

-- The functions of the search index. docs/explanation/search-index.md explains the searches. The index
-- stores the results of these functions, so a function is never changed: its successor has a new name
-- and a new index.

-- The rules of lower case for the search, whatever the locale of the database is: Unicode's, in
-- PostgreSQL 17 and newer, or of ICU. A server with neither has those of the database, which are ASCII only
-- for the locale C; the doctor reports that.
DO $body$
BEGIN
    IF current_setting('server_version_num')::integer >= 170000 AND getdatabaseencoding() = 'UTF8' THEN
        CREATE COLLATION asyncsvc.search (provider = builtin, locale = 'C.UTF-8');
    ELSIF EXISTS (SELECT FROM pg_catalog.pg_collation AS l WHERE l.collprovider = 'i') THEN
        CREATE COLLATION asyncsvc.search (provider = icu, locale = 'und');
    ELSE
        EXECUTE format('CREATE COLLATION asyncsvc.search (provider = libc, lc_collate = %L, lc_ctype = %L)',
                       'C', (SELECT d.datctype FROM pg_catalog.pg_database AS d
                              WHERE d.datname = current_database()));
    END IF;
END
$body$;

-- Return a text as the search compares it: in lower case, with σ for the final sigma ς. ICU writes ς at
-- the end of a word, so the keyword ΟΔΟΣ would not be part of ΟΔΟΣΑ.
CREATE FUNCTION asyncsvc.lower_v1(content text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN replace(lower(content COLLATE asyncsvc.search), 'ς', 'σ');

-- Return the grams of a text in lower case: each character, each pair of characters, and each sequence
-- of 3 characters below U+2E80. Alphabets, which have few letters, are below U+2E80; Chinese, Japanese,
-- Korean and emoji are above. A text contains all grams of each of its substrings.
-- Replacing (.) by \1 U+0001 \1 puts each pair between two U+0001. A U+0001 in the text splits a gram
-- into smaller grams, which are grams of the text too.
CREATE FUNCTION asyncsvc.search_grams_v1(content text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $body$
DECLARE
    folded  text := asyncsvc.lower_v1(content) COLLATE "C";
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
-- letter; without these, pairs of letters; without these, single characters. Otherwise the search would
-- also read the long list of each common pair, although a longer gram finds the same rows. A keyword of
-- only U+0001 has no grams, so the search reads all messages.
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

-- Return the number of the week of an instant, counted from 1970-01-01, and the first instant of a week.
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
-- the real cost, so that the planner always prefers the index to a computation for each row. An inlined
-- SQL function would lose its cost, so it is PL/pgSQL.
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
CREATE INDEX message_search_idx
    ON asyncsvc.message USING gin ((asyncsvc.search_terms_v1(
    tenant_id, dialog_id, conversation_created_at, content)) COLLATE "C")
    WITH (gin_pending_list_limit = 65536) WHERE is_indexed;
CREATE INDEX conversation_title_search_idx
    ON asyncsvc.conversation_title USING gin ((asyncsvc.search_terms_v1(
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

-- The result of each append with an idempotency key, so that a replay returns the same result.
-- body_hash is the SHA-256 of the turn: the same key with another turn is a conflict. A key is deleted
-- with its conversation, or by maintenance after Settings.key_lifetime.
-- Scale factor: maintenance deletes about as many keys a day as appends add.
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
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Expiry of keys. A new key is the youngest, so an insert writes to the last page.
CREATE INDEX append_key_created_idx ON asyncsvc.append_key (created_at);

-- The idempotency keys of usage that was recorded without a message, by usage/record and usage/adjust.
-- body_hash is the SHA-256 of the call. Maintenance deletes a key after Settings.key_lifetime.
CREATE TABLE asyncsvc.usage_key (
    tenant_id  text COLLATE "C" NOT NULL,
    key        text COLLATE "C" NOT NULL,
    body_hash  bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key)
);

-- Expiry of keys, as append_key_created_idx.
CREATE INDEX usage_key_created_idx ON asyncsvc.usage_key (created_at);

-- Usage is counted on two bases. "creation" counts each existing conversation with its present values at
-- its creation: a deletion removes its usage, and a move to another dialog moves it. "activity" counts
-- each change in the quarter hour in which it happened, and a deletion removes nothing, so past bills do
-- not change. Since 1972 the offset of every zone has been a multiple of a quarter hour, so the days of
-- every zone are exact. Durations are in microseconds.
--
-- The ledger contains the changes that the sums below do not include yet. Each statement that changes a
-- conversation or its counters inserts a row with the differences, and with the dialog, source, user and
-- creation that the conversation has under its row lock. `at` is the time of the activity by the server's
-- clock, or for an import the creation of the conversation; a row that is not activity has none. A row
-- that no conversation counts has no created_at, and '' for a missing dialog or user. acting_user_id is
-- the person who acted, NULL for the user of the conversation. token_id is the first token of a family of
-- rotated tokens. cost is in nano units (10^-9), unpriced the number of usages without a known cost,
-- unmetered the number of rounds without usage. Budgets do not count rows with is_imported. Rows are only
-- inserted, so concurrent appends do not wait for each other; with a shared counter they would.
-- usage/roll_up moves the rows into the sums in one statement, so the sums plus the ledger are exact in
-- every snapshot. One change fits into a bigint; the sum of many may not, so the sums of tokens, durations
-- and rounds are numeric.
CREATE TABLE asyncsvc.usage_ledger (
    tenant_id  text COLLATE "C" NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    source     text COLLATE "C",
    user_id    text COLLATE "C" NOT NULL,
    created_at timestamptz,
    at         timestamptz,
    token_id   text COLLATE "C",
    conversations integer NOT NULL DEFAULT 0,
    tokens     bigint NOT NULL DEFAULT 0,
    duration   bigint NOT NULL DEFAULT 0,
    rounds     bigint NOT NULL DEFAULT 0,
    thumb_up   integer NOT NULL DEFAULT 0,
    thumb_down integer NOT NULL DEFAULT 0,
    is_imported boolean NOT NULL DEFAULT false,
    acting_user_id text COLLATE "C",
    model      text COLLATE "C",
    requests   bigint,
    input_tokens bigint,
    cached_input_tokens bigint,
    cache_write_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    cost       bigint,
    unpriced   bigint,
    unmetered  bigint
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Each statement on the ledger reads the rows of one tenant. Without statistics on tenant_id the planner
-- always uses this index. With statistics of an almost empty table it would scan the table, including
-- dead rows that are not vacuumed yet.
CREATE INDEX usage_ledger_tenant_idx ON asyncsvc.usage_ledger (tenant_id);
ALTER TABLE asyncsvc.usage_ledger ALTER COLUMN tenant_id SET STATISTICS 0;

CREATE SEQUENCE asyncsvc.audit_id;

-- Return an id for the row of an audit, which orders the rows of one statement. The function hides the
-- sequence from Citus, which would otherwise generate the ids on the coordinator. Each node has a sequence
-- of its own. The ids of a tenant differ, because its rows are on one node, or their times do.
CREATE FUNCTION asyncsvc.next_audit_id_v1() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    RETURN nextval('asyncsvc.audit_id');

-- Changes of budgets and corrections of usage, with their actors, and the thresholds (50, 80 and 100 percent)
-- that the usage of a subject crossed. Only these have window_start, threshold and max_used.
CREATE TABLE asyncsvc.usage_audit (
    tenant_id  text COLLATE "C" NOT NULL,
    id         bigint NOT NULL DEFAULT asyncsvc.next_audit_id_v1(),
    at         timestamptz NOT NULL,
    action     text NOT NULL CHECK (action IN (
                   'adjust', 'set_budget', 'raise_limit', 'delete_budget', 'budget_crossed')),
    actor      text,
    budget_id  text COLLATE "C",
    subject    text COLLATE "C",
    window_start timestamptz,
    threshold  smallint,
    max_used   numeric,
    detail     jsonb NOT NULL,
    PRIMARY KEY (tenant_id, at, id)
);

-- The zones in which buckets of a tenant are stored. The first roll-up adds UTC. A roll-up locks the UTC
-- row, so 1 session at a time works on a tenant, and other sessions skip the tenant. In the UTC row,
-- users_since is the first UTC month of which the sums name the persons.
CREATE TABLE asyncsvc.usage_zone (
    tenant_id text COLLATE "C" NOT NULL,
    zone      text COLLATE "C" NOT NULL,
    users_since date NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (tenant_id, zone)
);

-- The tenants whose sums may name persons of too long ago.
CREATE INDEX usage_zone_users_since_idx ON asyncsvc.usage_zone (users_since) WHERE zone = 'UTC';

-- The sums of both bases by local day, week (from Monday) and month in each of these zones, so a year has
-- a few hundred rows at any volume. Buckets have one dimension at a time: the tenant ("all"), each dialog,
-- each source, and by activity each family of tokens and each model. value is NULL for "all" and for usage
-- without a source, token or model. Each bucket has its number of distinct users. `bucket` is the local date
-- of its start, because a local midnight may occur twice. A conversation does not keep all counters; by
-- creation the others are NULL.
-- Scale factor: a roll-up updates the rows of the present day, week and month.
CREATE TABLE asyncsvc.usage_bucket (
    tenant_id  text COLLATE "C" NOT NULL,
    zone       text COLLATE "C" NOT NULL,
    basis      text COLLATE "C" NOT NULL CHECK (basis IN ('creation', 'activity')),
    grain      text COLLATE "C" NOT NULL CHECK (grain IN ('day', 'week', 'month')),
    dimension  text COLLATE "C" NOT NULL
               CHECK (dimension IN ('all', 'dialog_id', 'source', 'token_id', 'model')),
    value      text COLLATE "C",
    bucket     date NOT NULL,
    conversations bigint NOT NULL,
    users      bigint NOT NULL,
    rounds     numeric NOT NULL,
    requests   numeric,
    input_tokens numeric,
    cached_input_tokens numeric,
    cache_write_tokens numeric,
    output_tokens numeric,
    reasoning_tokens numeric,
    tokens     numeric NOT NULL,
    cost       numeric,
    unpriced   numeric,
    unmetered  bigint,
    duration   numeric NOT NULL,
    thumb_up   bigint NOT NULL,
    thumb_down bigint NOT NULL,
    CONSTRAINT usage_bucket_key
        UNIQUE NULLS NOT DISTINCT (tenant_id, zone, basis, grain, dimension, value, bucket)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);

-- The sums of the activity by quarter hour and all dimensions. user_id is the person who acted, '' for
-- none. They serve statistics by hour, by person, by several dimensions and in undeclared zones, and the
-- buckets of zones declared later. They are kept until their tenant is deleted; usage/sum_out_users removes
-- the persons of old ones.
-- Scale factor: a roll-up updates the rows of the present quarter hour.
CREATE TABLE asyncsvc.usage_quarter_hour (
    tenant_id  text COLLATE "C" NOT NULL,
    quarter_hour timestamptz NOT NULL,
    dialog_id  text COLLATE "C" NOT NULL,
    source     text COLLATE "C",
    token_id   text COLLATE "C",
    user_id    text COLLATE "C" NOT NULL,
    model      text COLLATE "C",
    is_imported boolean NOT NULL,
    conversations bigint NOT NULL,
    rounds     numeric NOT NULL,
    requests   numeric NOT NULL,
    input_tokens numeric NOT NULL,
    cached_input_tokens numeric NOT NULL,
    cache_write_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    reasoning_tokens numeric NOT NULL,
    tokens     numeric NOT NULL,
    cost       numeric NOT NULL,
    unpriced   numeric NOT NULL,
    unmetered  bigint NOT NULL,
    duration   numeric NOT NULL,
    thumb_up   bigint NOT NULL,
    thumb_down bigint NOT NULL,
    CONSTRAINT usage_quarter_hour_key UNIQUE NULLS NOT DISTINCT (
        tenant_id, quarter_hour, dialog_id, source, token_id, user_id, model, is_imported)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

-- The usage of a person, and whether a person was active in a bucket before a roll-up.
CREATE INDEX usage_quarter_hour_user_idx
    ON asyncsvc.usage_quarter_hour (tenant_id, user_id, quarter_hour);

-- The sums of the activity by person and UTC month, for the persons with the highest usage and for distinct
-- users of a long range. usage/sum_out_users deletes old ones.
-- Scale factor: a roll-up updates the rows of the present month.
CREATE TABLE asyncsvc.usage_user_month (
    tenant_id  text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    month      date NOT NULL,
    conversations bigint NOT NULL,
    rounds     numeric NOT NULL,
    requests   numeric NOT NULL,
    input_tokens numeric NOT NULL,
    cached_input_tokens numeric NOT NULL,
    cache_write_tokens numeric NOT NULL,
    output_tokens numeric NOT NULL,
    reasoning_tokens numeric NOT NULL,
    tokens     numeric NOT NULL,
    cost       numeric NOT NULL,
    unpriced   numeric NOT NULL,
    unmetered  bigint NOT NULL,
    duration   numeric NOT NULL,
    thumb_up   bigint NOT NULL,
    thumb_down bigint NOT NULL,
    PRIMARY KEY (tenant_id, user_id, month)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);

-- An upper bound of the usage of each person in any range: the sums of the positive changes that a roll-up
-- moved, without the months that usage/sum_out_users deleted. The persons with the highest usage in a range
-- are among those with the highest bounds, so usage/stats reads the months of few persons.
CREATE TABLE asyncsvc.usage_user (
    tenant_id  text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL,
    last_month date NOT NULL,
    cost       numeric NOT NULL,
    tokens     numeric NOT NULL,
    rounds     numeric NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- The persons with the highest bounds.
CREATE INDEX usage_user_bound_idx ON asyncsvc.usage_user (tenant_id, cost, tokens, rounds);

-- Return a sum as bigint; NULL if a bigint does not hold it.
CREATE FUNCTION asyncsvc.bigint_v1(total numeric) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $body$
    SELECT CASE WHEN total BETWEEN -9223372036854775807 AND 9223372036854775807 THEN total::bigint END
$body$;

-- Return whether the clock of a zone goes back within 25 hours of an instant. Near such a change a local
-- date may occur twice, with up to 1 day between.
CREATE FUNCTION asyncsvc.clock_goes_back(near timestamptz, zone text) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (near + interval '25 hours') AT TIME ZONE zone
           - (near - interval '25 hours') AT TIME ZONE zone < interval '50 hours'
$$;

-- Return the whole buckets of a grain (day, week, month) in a zone within a range of instants: the buckets
-- that start from first_whole to last_whole, both in local time. If first_whole is later, there are none.
--
-- The first bucket is whole if the instant before the range is in another bucket, the last bucket if the
-- instant after the range is. Near a clock that goes back, 2 buckets at that end do not count as whole.
-- The part of the range in buckets before first_whole is earlier than head_until. The part in buckets
-- after last_whole starts at tail_since or later. Each is NULL if there is no such part.
CREATE FUNCTION asyncsvc.whole_buckets(since timestamptz, until timestamptz, grain text, zone text)
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
      FROM (SELECT ('1 ' || grain)::interval AS step,
                   date_trunc(grain, since AT TIME ZONE zone) AS first,
                   date_trunc(grain, (since - interval '1 microsecond') AT TIME ZONE zone) AS before,
                   date_trunc(grain, (until - interval '1 microsecond') AT TIME ZONE zone) AS last,
                   date_trunc(grain, until AT TIME ZONE zone) AS after) AS b
     CROSS JOIN LATERAL (
           SELECT b.first + b.step * CASE WHEN asyncsvc.clock_goes_back(since, zone) THEN 2
                                          WHEN b.before = b.first THEN 1 ELSE 0 END AS first_whole,
                  b.last - b.step * CASE WHEN asyncsvc.clock_goes_back(until, zone) THEN 2
                                         WHEN b.after = b.last THEN 1 ELSE 0 END AS last_whole) AS w;
END
$$;

-- Return the labels of buckets of a grain (hour, day, week, month) in a zone, as date_trunc computes them,
-- for each bucket with an instant in the range.
--
-- Days, weeks and months advance on the local calendar, so a day of 23 or 25 hours is one step. Hours
-- advance by half an hour of real time, up to the end of the range, because some clocks shift by half an
-- hour and some hours occur twice. If the range is a day that the zone skipped, there is no label.
--
-- This function and whole_buckets are in PL/pgSQL, which the planner does not inline. If they were
-- inlined, the planning of statistics would take longer than the execution, and each range would have its
-- own plan.
CREATE FUNCTION asyncsvc.bucket_labels(since timestamptz, until timestamptz, grain text, zone text)
RETURNS SETOF timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100 AS $$
DECLARE
    last CONSTANT timestamptz = until - interval '1 microsecond';
BEGIN
    IF since >= until THEN
        RETURN;
    ELSIF grain = 'hour' THEN
        RETURN QUERY
        SELECT date_trunc('hour', s.at, zone)
          FROM (SELECT generate_series(since, last, interval '30 minutes')
                 UNION ALL
                SELECT last) AS s (at);
    ELSE
        RETURN QUERY
        SELECT s.at AT TIME ZONE zone
          FROM generate_series(date_trunc(grain, since AT TIME ZONE zone), last AT TIME ZONE zone,
                               ('1 ' || grain)::interval) AS s (at);
    END IF;
END
$$;

-- API tokens. The table contains the hash of the secret, never the secret. pepper_version 0 is SHA-256, n
-- is HMAC-SHA-256 with pepper n. hint is the beginning of the secret, for people. A token is retiring
-- while revoked_at is in the future. family_id is the id of the first token of a chain of rotations: its own
-- id for a token that no rotation created. last_used_at has no index, so that its update is a HOT update. No
-- foreign key refers to a token, so that no lock on another table delays a write to it.
CREATE TABLE asyncsvc.api_token (
    tenant_id      text COLLATE "C" NOT NULL,
    id             text COLLATE "C" NOT NULL,
    name           text NOT NULL,
    token_hash     bytea NOT NULL CHECK (octet_length(token_hash) = 32),
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
    rotated_from   text COLLATE "C",
    family_id      text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (token_hash, tenant_id)
) WITH (fillfactor = 85);

-- Lists and deletion of a tenant's tokens. It contains all tokens; the condition limits it to
-- statements that repeat it, so that no lookup by key reads this index instead of the primary key.
CREATE INDEX api_token_tenant_idx
    ON asyncsvc.api_token (tenant_id, created_at, id) WHERE created_at >= '-infinity';

-- It allows at most one successor under concurrent rotation.
CREATE UNIQUE INDEX api_token_rotated_from_idx
    ON asyncsvc.api_token (tenant_id, rotated_from) WHERE rotated_from IS NOT NULL;

-- api_token/get_family. A rotation does not change it, so it also finds relatives of a deleted token.
CREATE INDEX api_token_family_idx
    ON asyncsvc.api_token (tenant_id, family_id) WHERE family_id IS NOT NULL;

-- The token of each hash, which is unique across tenants. On Citus it stays on the coordinator, which looks
-- up the tenant of a token before it knows the node; a plain server reads api_token alone. The statement
-- that stores, rehashes or deletes a token also writes its row.
CREATE TABLE asyncsvc.api_token_hash (
    token_hash bytea NOT NULL PRIMARY KEY CHECK (octet_length(token_hash) = 32),
    tenant_id  text COLLATE "C" NOT NULL,
    token_id   text COLLATE "C" NOT NULL
);

-- Deletion of a token, and a new hash of its secret.
CREATE INDEX api_token_hash_token_idx ON asyncsvc.api_token_hash (tenant_id, token_id);

-- The actions on the tokens of a tenant, with their actors. The statement that changes a token inserts
-- the row. Rows outlive their tokens, and contain no secret and no hash.
CREATE TABLE asyncsvc.token_audit (
    tenant_id text COLLATE "C" NOT NULL,
    id        bigint NOT NULL DEFAULT asyncsvc.next_audit_id_v1(),
    token_id  text COLLATE "C" NOT NULL,
    action    text NOT NULL,
    actor     text,
    at        timestamptz NOT NULL,
    detail    jsonb NOT NULL,
    PRIMARY KEY (tenant_id, at, id)
);

-- token_audit/get_list of one token.
CREATE INDEX token_audit_token_idx ON asyncsvc.token_audit (tenant_id, token_id, at, id);

-- The tenants of which a process watches the new messages. Until expires_at an append to a conversation of
-- the tenant sends a notification. A row is renewed while someone watches, and deleted with the tenant.
CREATE TABLE asyncsvc.watched_tenant (
    tenant_id  text COLLATE "C" NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id)
) WITH (fillfactor = 50);

-- Small data of an application that is not a conversation, by kind and id: attachments, users, state that
-- several conversations share. No statistic counts it. The owner never changes. An update changes no
-- indexed column, so the new row version is a HOT update if it fits on the page.
CREATE TABLE asyncsvc.record (
    tenant_id  text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    user_id    text COLLATE "C" NOT NULL DEFAULT '',
    data       jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, kind, id)
) WITH (fillfactor = 85);

-- record/get_list of one user, erasure of a user, deletion of a tenant.
CREATE INDEX record_user_idx ON asyncsvc.record (tenant_id, user_id, kind, id);

-- The claim of the process that runs maintenance in the background. The other processes skip their runs
-- until claimed_until. A claim outlives its transaction, so that it works through a transaction pooler,
-- and expires if its process is killed. At most one row. The last complete run, of any process, has
-- processed all rows that were committed before processed_until.
CREATE TABLE asyncsvc.maintenance (
    only_row        boolean NOT NULL PRIMARY KEY DEFAULT true CHECK (only_row),
    worker          text NOT NULL,
    claimed_at      timestamptz NOT NULL,
    claimed_until   timestamptz NOT NULL,
    processed_until timestamptz
);

-- Return the first instant of the local hour, day, week (from Monday) or month that contains an instant,
-- and the first instant after it. These are the buckets of date_trunc(grain, at, zone). 'total' is all time.
--
-- A local midnight may be skipped or occur twice, and so may half an hour or a whole day. Near a change of
-- the clock the function therefore compares quarter hours, which contain no change. Elsewhere a local time is
-- 1 instant.
CREATE FUNCTION asyncsvc.budget_window_v1(
    at timestamptz, grain text, zone text, OUT window_start timestamptz, OUT window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    bucket timestamptz;
BEGIN
    IF grain = 'total' THEN
        window_start := '-infinity';
        window_end := 'infinity';
        RETURN;
    END IF;
    bucket := date_trunc(grain, at, zone);
    window_start := bucket;
    window_end := CASE grain WHEN 'hour' THEN bucket + interval '1 hour' ELSE
        (date_trunc(grain, at AT TIME ZONE zone) + ('1 ' || grain)::interval) AT TIME ZONE zone END;
    IF (window_start + interval '25 hours') AT TIME ZONE zone
       - (window_start - interval '25 hours') AT TIME ZONE zone <> interval '50 hours' THEN
        window_start := (SELECT min(q.at)
                           FROM generate_series(
                                date_bin('15 minutes', window_start, '0001-01-01 00:00+00')
                                - interval '25 hours', window_start + interval '25 hours',
                                interval '15 minutes') AS q (at)
                          WHERE date_trunc(grain, q.at, zone) = bucket);
    END IF;
    IF (window_end + interval '25 hours') AT TIME ZONE zone
       - (window_end - interval '25 hours') AT TIME ZONE zone <> interval '50 hours' THEN
        window_end := (SELECT max(q.at) + interval '15 minutes'
                         FROM generate_series(
                              date_bin('15 minutes', window_end, '0001-01-01 00:00+00')
                              - interval '25 hours', window_end + interval '25 hours',
                              interval '15 minutes') AS q (at)
                        WHERE date_trunc(grain, q.at, zone) = bucket);
    END IF;
END
$$;

-- Limits of usage. subject is a user, a dialog or the first token of a family of rotated tokens; '' is each
-- one of the scope that has no budget of its own for this metric and grain, and the only subject of the scope
-- tenant. No other index begins with the tenant, so that a plan without statistics does not read all budgets
-- of a tenant for those of a subject. max_used is in the unit of the metric, a cost in nano units (10^-9).
-- since is the begin of the grain total, and NULL for the others.
CREATE TABLE asyncsvc.budget (
    tenant_id  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    scope      text COLLATE "C" NOT NULL CHECK (scope IN ('tenant', 'token', 'user', 'dialog')),
    subject    text COLLATE "C" NOT NULL,
    metric     text COLLATE "C" NOT NULL CHECK (metric IN ('cost', 'tokens', 'uncached_tokens', 'rounds')),
    grain      text COLLATE "C" NOT NULL CHECK (grain IN ('hour', 'day', 'week', 'month', 'total')),
    zone       text COLLATE "C" NOT NULL,
    max_used   numeric NOT NULL,
    since      timestamptz,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, subject, scope, metric, grain),
    CONSTRAINT budget_id_key UNIQUE (id, tenant_id)
);

-- The usage that budgets count, by budget, subject and window, without the rows of the ledger. usage/roll_up
-- adds the rows of the ledger that it moves. No usage is ever subtracted or set to 0: the start of the
-- present window is computed. Maintenance deletes the rows of ended windows.
CREATE TABLE asyncsvc.budget_usage (
    tenant_id  text COLLATE "C" NOT NULL,
    budget_id  text COLLATE "C" NOT NULL,
    subject    text COLLATE "C" NOT NULL,
    window_start timestamptz NOT NULL,
    used       numeric NOT NULL,
    PRIMARY KEY (tenant_id, budget_id, subject, window_start)
) WITH (fillfactor = 85);

-- budget/erase_user.
CREATE INDEX budget_usage_subject_idx ON asyncsvc.budget_usage (tenant_id, subject);

-- A threshold is crossed once for each subject, window and limit.
CREATE UNIQUE INDEX usage_audit_crossed_idx ON asyncsvc.usage_audit (
    tenant_id, budget_id, subject, window_start, threshold, max_used) WHERE action = 'budget_crossed';

-- usage_audit/get_list of one budget, budget/erase_user.
CREATE INDEX usage_audit_budget_idx ON asyncsvc.usage_audit (tenant_id, budget_id, at, id);
CREATE INDEX usage_audit_subject_idx ON asyncsvc.usage_audit (tenant_id, subject) WHERE subject IS NOT NULL;

-- Return the budgets that apply to a token family, a user and a dialog, with the usage of their windows at an
-- instant: the tightest first, at most max_budgets, all if that is NULL. A NULL subject has no budgets.
-- of_token_id, any token of the family, takes the place of the family. A budget of a subject hides the
-- default of the same scope, metric and grain. Spent budgets come first, since a share of a limit that is
-- nearly 1 may be rounded to 1.
--
-- One statement reads the rolled up usage and the ledger, so usage that a roll-up moves meanwhile is counted
-- once, also on Citus. It reads the ledger of the tenant once for all budgets of the same metric and window.
-- For a few rows DISTINCT ON, which sorts, takes less time than the hash table of DISTINCT.
--
-- The lookup before it answers for tenants without budgets: a server initialises all parts of a plan at each
-- call, also those that read nothing. The plans are generic: to plan the statement for its values takes three
-- times as long as to run it, and beside tenants with many budgets the server would do so at each call.
CREATE FUNCTION asyncsvc.budget_status_v1(
    of_tenant_id text, of_family_id text, of_token_id text, of_user_id text, of_dialog_id text,
    instant timestamptz, max_budgets integer)
RETURNS TABLE (
    budget_id text, scope text, subject text, is_default boolean, metric text, grain text, zone text,
    max_used numeric, window_start timestamptz, window_end timestamptz, used numeric, is_alerted boolean)
LANGUAGE plpgsql STABLE ROWS 1 SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    IF of_token_id IS NOT NULL THEN
        of_family_id := coalesce((
            SELECT t.family_id
              FROM asyncsvc.api_token AS t
             WHERE t.tenant_id = of_tenant_id
               AND t.id = of_token_id), of_token_id);
    END IF;
    PERFORM FROM asyncsvc.budget AS b
      WHERE b.tenant_id = of_tenant_id
        AND b.subject = ANY (ARRAY['', of_family_id, of_user_id, of_dialog_id])
      LIMIT 1;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH applicable AS MATERIALIZED (
        SELECT DISTINCT ON (b.metric, b.grain, b.scope)
               b.id, b.scope, s.subject, b.subject = '' AND b.scope <> 'tenant' AS is_default, b.metric,
               b.grain, b.zone, b.max_used, coalesce(b.since, w.window_start) AS window_start, w.window_end
          FROM asyncsvc.budget AS b
         CROSS JOIN LATERAL (
               SELECT CASE b.scope WHEN 'tenant' THEN ''
                                   WHEN 'token' THEN of_family_id
                                   WHEN 'user' THEN nullif(of_user_id, '')
                                   ELSE of_dialog_id END AS subject) AS s
         CROSS JOIN LATERAL asyncsvc.budget_window_v1(instant, b.grain, b.zone) AS w
         WHERE b.tenant_id = of_tenant_id
           AND b.subject = ANY (ARRAY['', of_family_id, of_user_id, of_dialog_id])
           AND (b.subject = s.subject OR b.subject = '' AND s.subject IS NOT NULL)
         ORDER BY b.metric, b.grain, b.scope, b.subject DESC
    ), counted AS MATERIALIZED (
        SELECT w.metric, w.window_start, w.window_end, l.by_tenant, l.by_token, l.by_user, l.by_dialog
          FROM (
            SELECT DISTINCT ON (a.metric, a.window_start, a.window_end)
                   a.metric, a.window_start, a.window_end
              FROM applicable AS a
             ORDER BY a.metric, a.window_start, a.window_end
          ) AS w
         CROSS JOIN LATERAL (
               SELECT sum(l.used) AS by_tenant,
                      sum(l.used) FILTER (WHERE l.token_id = of_family_id) AS by_token,
                      sum(l.used) FILTER (WHERE l.user_id = of_user_id) AS by_user,
                      sum(l.used) FILTER (WHERE l.dialog_id = of_dialog_id) AS by_dialog
                 FROM (
                   SELECT l.token_id, coalesce(l.acting_user_id, l.user_id) AS user_id, l.dialog_id,
                          CASE w.metric WHEN 'cost' THEN l.cost
                                        WHEN 'tokens' THEN l.tokens
                                        WHEN 'rounds' THEN l.rounds
                                        ELSE l.tokens - coalesce(l.cached_input_tokens, 0) END AS used
                     FROM asyncsvc.usage_ledger AS l
                    WHERE l.tenant_id = of_tenant_id
                      AND l.at >= w.window_start
                      AND l.at < w.window_end
                      AND NOT l.is_imported
                 ) AS l) AS l
    )
    SELECT u.id, u.scope, nullif(u.subject, ''), u.is_default, u.metric, u.grain, u.zone, u.max_used,
           u.window_start, nullif(u.window_end, 'infinity'), u.used,
           (u.used >= u.max_used OR u.max_used = 0) AND EXISTS (
               SELECT FROM asyncsvc.usage_audit AS e
                WHERE e.tenant_id = of_tenant_id
                  AND e.budget_id = u.id
                  AND e.subject = u.subject
                  AND e.window_start = u.window_start
                  AND e.threshold = 100
                  AND e.max_used = u.max_used
                  AND e.action = 'budget_crossed')
      FROM (
        SELECT a.id, a.scope, a.subject, a.is_default, a.metric, a.grain, a.zone, a.max_used, a.window_start,
               a.window_end,
               coalesce((
                   SELECT r.used
                     FROM asyncsvc.budget_usage AS r
                    WHERE r.tenant_id = of_tenant_id
                      AND r.budget_id = a.id
                      AND r.subject = a.subject
                      AND r.window_start = a.window_start), 0)
               + coalesce((
                   SELECT CASE a.scope WHEN 'tenant' THEN c.by_tenant
                                       WHEN 'token' THEN c.by_token
                                       WHEN 'user' THEN c.by_user
                                       ELSE c.by_dialog END
                     FROM counted AS c
                    WHERE c.metric = a.metric
                      AND c.window_start = a.window_start
                      AND c.window_end = a.window_end), 0) AS used
          FROM applicable AS a
        OFFSET 0
      ) AS u
     ORDER BY greatest(u.used, 0) >= u.max_used DESC,
              CASE u.max_used WHEN 0 THEN 'infinity' ELSE u.used / u.max_used END DESC,
              u.window_end DESC, u.id
     LIMIT max_budgets;
END
$$;

-- Only on Citus: lock the shard of a tenant on this node against a move, and return its number.
-- Citus allows the lock to the owner of the tables only, and it is the one that each write takes.
CREATE FUNCTION asyncsvc.lock_shard_v1(tenant_id text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    shard bigint := get_shard_id_for_distribution_column('asyncsvc.conversation', tenant_id);
BEGIN
    PERFORM lock_shard_metadata(5, ARRAY[shard]);
    IF NOT EXISTS (SELECT
                     FROM pg_dist_placement AS p
                     JOIN pg_dist_local_group AS g ON g.groupid = p.groupid
                    WHERE p.shardid = shard) THEN
        RAISE 'the tenant has moved to another node' USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN shard;
END
$body$;

-- Only on Citus: return a statement with the shards of a tenant instead of the tables. The shards of
-- one tenant have the same bounds.
CREATE FUNCTION asyncsvc.on_shards_v1(statement text, shard bigint) RETURNS text
    LANGUAGE plpgsql STABLE AS $body$
DECLARE
    each record;
BEGIN
    FOR each IN
        SELECT c.relname, s.shardid
          FROM pg_catalog.pg_class AS c
          JOIN pg_catalog.pg_dist_shard AS s ON s.logicalrelid = c.oid
          JOIN pg_catalog.pg_dist_shard AS own ON own.shardid = shard
         WHERE c.relnamespace = 'asyncsvc'::regnamespace
           AND s.shardminvalue = own.shardminvalue
    LOOP
        statement := regexp_replace(statement, format('\masyncsvc\.%s\M', each.relname),
                                    format('asyncsvc.%s_%s', each.relname, each.shardid), 'g');
    END LOOP;
    RETURN statement;
END
$body$;

-- Only on Citus: run a statement of a tenant on its shards, on this node. Citus calls this function on
-- the node of the tenant. The statement has one parameter, :arguments, and casts its elements. A session
-- prepares it once for each shard, and keeps at most 200.
CREATE FUNCTION asyncsvc.run_on_node_v1(tenant_id text, statement text, arguments text[])
    RETURNS SETOF record LANGUAGE plpgsql AS $body$
DECLARE
    shard    bigint := asyncsvc.lock_shard_v1(tenant_id);
    prepared text := format('asyncsvc_%s_%s', shard, md5(statement));
    oldest   text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_prepared_statements AS p WHERE p.name = prepared) THEN
        FOR oldest IN
            SELECT p.name
              FROM pg_catalog.pg_prepared_statements AS p
             WHERE p.name LIKE 'asyncsvc\_%'
             ORDER BY p.prepare_time DESC
            OFFSET 199
        LOOP
            EXECUTE format('DEALLOCATE %I', oldest);
        END LOOP;
        EXECUTE format('PREPARE %I (text[]) AS %s', prepared, asyncsvc.on_shards_v1(statement, shard));
    END IF;
    RETURN QUERY EXECUTE format('EXECUTE %I (%L)', prepared, arguments);
END
$body$;
