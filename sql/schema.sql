-- The schema after all migrations, in one piece, to read. Nothing runs this file.
-- sql/migrations/ has the reasons for each table and index.
--
-- Generated: ASYNCSVC_UPDATE_SCHEMA=1 pytest tests/database/test_schema.py

-- CREATE COLLATION asyncsvc.search: its provider depends on the server.

CREATE TABLE asyncsvc.migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone NOT NULL,
    CONSTRAINT migration_pkey PRIMARY KEY (version)
);

CREATE TABLE asyncsvc.conversation (
    tenant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    dialog_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" DEFAULT ''::text NOT NULL,
    exp_user_id text COLLATE "C",
    name text,
    source text COLLATE "C",
    version_title text,
    metadata jsonb,
    dsl jsonb,
    errors text,
    round integer DEFAULT 0 NOT NULL,
    tokens bigint DEFAULT 0 NOT NULL,
    duration bigint DEFAULT 0 NOT NULL,
    thumb_up integer DEFAULT 0 NOT NULL,
    thumb_down integer DEFAULT 0 NOT NULL,
    last_seq integer DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT conversation_pkey PRIMARY KEY (tenant_id, id)
) WITH (fillfactor=85);

CREATE TABLE asyncsvc.conversation_recency (
    tenant_id text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    dialog_id text COLLATE "C" NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    appended_at timestamp with time zone,
    CONSTRAINT conversation_recency_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT conversation_recency_tenant_id_id_fkey FOREIGN KEY (tenant_id, id) REFERENCES asyncsvc.conversation(tenant_id, id) ON DELETE CASCADE
) WITH (fillfactor=85);

CREATE TABLE asyncsvc.message (
    tenant_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    seq integer NOT NULL,
    id text COLLATE "C",
    role text NOT NULL,
    content text NOT NULL,
    payload jsonb NOT NULL,
    reference jsonb,
    thumb smallint,
    created_at timestamp with time zone NOT NULL,
    dialog_id text COLLATE "C" NOT NULL,
    conversation_created_at timestamp with time zone NOT NULL,
    is_indexed boolean DEFAULT false NOT NULL,
    is_imported boolean DEFAULT false NOT NULL,
    CONSTRAINT message_pkey PRIMARY KEY (tenant_id, conversation_id, seq),
    CONSTRAINT message_tenant_id_conversation_id_fkey FOREIGN KEY (tenant_id, conversation_id) REFERENCES asyncsvc.conversation(tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT message_thumb_check CHECK ((thumb = ANY (ARRAY['-1'::integer, 1])))
);

CREATE TABLE asyncsvc.conversation_title (
    tenant_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    name text,
    dialog_id text COLLATE "C" NOT NULL,
    conversation_created_at timestamp with time zone NOT NULL,
    is_indexed boolean DEFAULT false NOT NULL,
    CONSTRAINT conversation_title_pkey PRIMARY KEY (tenant_id, conversation_id),
    CONSTRAINT conversation_title_tenant_id_conversation_id_fkey FOREIGN KEY (tenant_id, conversation_id) REFERENCES asyncsvc.conversation(tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE asyncsvc.append_key (
    tenant_id text COLLATE "C" NOT NULL,
    conversation_id text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    body_hash bytea NOT NULL,
    first_seq integer NOT NULL,
    last_seq integer NOT NULL,
    round integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    CONSTRAINT append_key_pkey PRIMARY KEY (tenant_id, conversation_id, key),
    CONSTRAINT append_key_tenant_id_conversation_id_fkey FOREIGN KEY (tenant_id, conversation_id) REFERENCES asyncsvc.conversation(tenant_id, id) ON DELETE CASCADE
);

CREATE TABLE asyncsvc.usage_ledger (
    tenant_id text COLLATE "C" NOT NULL,
    dialog_id text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    user_id text COLLATE "C" NOT NULL,
    created_at timestamp with time zone,
    at timestamp with time zone,
    token_id text COLLATE "C",
    conversations integer DEFAULT 0 NOT NULL,
    tokens bigint DEFAULT 0 NOT NULL,
    duration bigint DEFAULT 0 NOT NULL,
    rounds integer DEFAULT 0 NOT NULL,
    thumb_up integer DEFAULT 0 NOT NULL,
    thumb_down integer DEFAULT 0 NOT NULL,
    is_imported boolean DEFAULT false NOT NULL,
    acting_user_id text COLLATE "C",
    model text COLLATE "C",
    requests integer,
    input_tokens bigint,
    cached_input_tokens bigint,
    cache_write_tokens bigint,
    output_tokens bigint,
    reasoning_tokens bigint,
    cost bigint,
    unpriced integer,
    unmetered integer
) WITH (autovacuum_vacuum_scale_factor=0, autovacuum_vacuum_threshold=2000);

CREATE TABLE asyncsvc.usage_zone (
    tenant_id text COLLATE "C" NOT NULL,
    zone text COLLATE "C" NOT NULL,
    CONSTRAINT usage_zone_pkey PRIMARY KEY (tenant_id, zone)
);

CREATE TABLE asyncsvc.usage_bucket (
    tenant_id text COLLATE "C" NOT NULL,
    zone text COLLATE "C" NOT NULL,
    basis text COLLATE "C" NOT NULL,
    grain text COLLATE "C" NOT NULL,
    dialog_key text COLLATE "C" NOT NULL,
    source_key text COLLATE "C" NOT NULL,
    bucket date NOT NULL,
    conversations bigint NOT NULL,
    users bigint NOT NULL,
    tokens numeric NOT NULL,
    duration numeric NOT NULL,
    rounds numeric NOT NULL,
    thumb_up bigint NOT NULL,
    thumb_down bigint NOT NULL,
    CONSTRAINT usage_bucket_pkey PRIMARY KEY (tenant_id, zone, basis, grain, dialog_key, source_key, bucket),
    CONSTRAINT usage_bucket_basis_check CHECK ((basis = ANY (ARRAY['creation'::text, 'activity'::text]))),
    CONSTRAINT usage_bucket_grain_check CHECK ((grain = ANY (ARRAY['day'::text, 'week'::text, 'month'::text])))
) WITH (fillfactor=70);

CREATE TABLE asyncsvc.usage_quarter_hour (
    tenant_id text COLLATE "C" NOT NULL,
    quarter_hour timestamp with time zone NOT NULL,
    dialog_id text COLLATE "C" NOT NULL,
    source text COLLATE "C",
    token_id text COLLATE "C",
    conversations bigint NOT NULL,
    tokens numeric NOT NULL,
    duration numeric NOT NULL,
    rounds numeric NOT NULL,
    thumb_up bigint NOT NULL,
    thumb_down bigint NOT NULL,
    CONSTRAINT usage_quarter_hour_key UNIQUE NULLS NOT DISTINCT (tenant_id, quarter_hour, dialog_id, source, token_id)
) WITH (fillfactor=85);

CREATE TABLE asyncsvc.api_token (
    id text COLLATE "C" NOT NULL,
    tenant_id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    token_hash bytea NOT NULL,
    pepper_version smallint NOT NULL,
    hint text NOT NULL,
    kind text NOT NULL,
    scopes text[] NOT NULL,
    dialog_id text COLLATE "C",
    source text COLLATE "C",
    metadata jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    created_by text,
    expires_at timestamp with time zone,
    revoked_at timestamp with time zone,
    revoked_reason text,
    last_used_at timestamp with time zone,
    rotated_from text COLLATE "C",
    family_id text COLLATE "C" NOT NULL,
    CONSTRAINT api_token_pkey PRIMARY KEY (id),
    CONSTRAINT api_token_kind_check CHECK ((kind = ANY (ARRAY['api'::text, 'beta'::text]))),
    CONSTRAINT api_token_token_hash_check CHECK ((octet_length(token_hash) = 32)),
    CONSTRAINT api_token_token_hash_key UNIQUE (token_hash)
) WITH (fillfactor=85);

CREATE TABLE asyncsvc.token_audit (
    tenant_id text COLLATE "C" NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
    token_id text COLLATE "C" NOT NULL,
    action text NOT NULL,
    actor text,
    at timestamp with time zone NOT NULL,
    detail jsonb NOT NULL,
    CONSTRAINT token_audit_pkey PRIMARY KEY (tenant_id, at, id)
);

CREATE TABLE asyncsvc.watched_tenant (
    tenant_id text COLLATE "C" NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    CONSTRAINT watched_tenant_pkey PRIMARY KEY (tenant_id)
) WITH (fillfactor=50);

CREATE TABLE asyncsvc.record (
    tenant_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" DEFAULT ''::text NOT NULL,
    data jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    CONSTRAINT record_pkey PRIMARY KEY (tenant_id, kind, id)
) WITH (fillfactor=85);

CREATE TABLE asyncsvc.maintenance (
    only_row boolean DEFAULT true NOT NULL,
    worker text NOT NULL,
    claimed_at timestamp with time zone NOT NULL,
    claimed_until timestamp with time zone NOT NULL,
    processed_until timestamp with time zone,
    CONSTRAINT maintenance_pkey PRIMARY KEY (only_row),
    CONSTRAINT maintenance_only_row_check CHECK (only_row)
);

CREATE INDEX conversation_created_idx ON asyncsvc.conversation USING btree (tenant_id, dialog_id, created_at, id);

CREATE INDEX conversation_user_idx ON asyncsvc.conversation USING btree (tenant_id, user_id, created_at) INCLUDE (dialog_id, source);

CREATE INDEX conversation_tenant_created_idx ON asyncsvc.conversation USING btree (tenant_id, created_at, id);

CREATE INDEX conversation_metadata_idx ON asyncsvc.conversation USING gin (asyncsvc.tenant_metadata_v1(tenant_id, metadata) jsonb_path_ops) WITH (fastupdate=off) WHERE (metadata <> '{}'::jsonb);

CREATE INDEX conversation_exp_user_idx ON asyncsvc.conversation USING btree (tenant_id, exp_user_id, created_at, id) WHERE (exp_user_id IS NOT NULL);

CREATE INDEX conversation_recency_updated_idx ON asyncsvc.conversation_recency USING btree (tenant_id, dialog_id, updated_at, id);

CREATE INDEX conversation_recency_tenant_idx ON asyncsvc.conversation_recency USING btree (tenant_id, updated_at, id);

CREATE UNIQUE INDEX message_id_idx ON asyncsvc.message USING btree (tenant_id, id, conversation_id) WHERE (id IS NOT NULL);

CREATE INDEX message_search_idx ON asyncsvc.message USING gin (asyncsvc.search_terms_v1(tenant_id, dialog_id, conversation_created_at, content)) WITH (gin_pending_list_limit='65536') WHERE is_indexed;

CREATE INDEX conversation_title_search_idx ON asyncsvc.conversation_title USING gin (asyncsvc.search_terms_v1(tenant_id, dialog_id, conversation_created_at, ((conversation_id || ''::text) || COALESCE(name, ''::text)))) WITH (gin_pending_list_limit='65536') WHERE is_indexed;

CREATE INDEX message_unindexed_idx ON asyncsvc.message USING btree (tenant_id, conversation_created_at, conversation_id, seq) WHERE (NOT is_indexed);

CREATE INDEX conversation_title_unindexed_idx ON asyncsvc.conversation_title USING btree (tenant_id, conversation_created_at, conversation_id) WHERE (NOT is_indexed);

CREATE INDEX append_key_created_idx ON asyncsvc.append_key USING btree (created_at);

CREATE INDEX usage_ledger_tenant_idx ON asyncsvc.usage_ledger USING btree (tenant_id);

CREATE INDEX api_token_tenant_idx ON asyncsvc.api_token USING btree (tenant_id, created_at, id);

CREATE UNIQUE INDEX api_token_rotated_from_idx ON asyncsvc.api_token USING btree (rotated_from) WHERE (rotated_from IS NOT NULL);

CREATE INDEX api_token_family_idx ON asyncsvc.api_token USING btree (family_id);

CREATE INDEX token_audit_token_idx ON asyncsvc.token_audit USING btree (tenant_id, token_id, at, id);

CREATE INDEX record_user_idx ON asyncsvc.record USING btree (tenant_id, user_id, kind, id);

CREATE STATISTICS asyncsvc.conversation_metadata_stat ON asyncsvc.tenant_metadata_v1(tenant_id, metadata) FROM asyncsvc.conversation;

ALTER TABLE asyncsvc.usage_ledger ALTER COLUMN tenant_id SET STATISTICS 0;

CREATE OR REPLACE FUNCTION asyncsvc.json_merge_text_v1(target jsonb, patch jsonb)
 RETURNS text
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.json_merge_v1(target jsonb, patch jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE
AS $function$
BEGIN
    IF jsonb_typeof(patch) = 'object' THEN
        RETURN asyncsvc.json_merge_text_v1(target, patch);
    END IF;
    RETURN patch;
END
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.tenant_metadata_v1(tenant_id text, metadata jsonb)
 RETURNS jsonb
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE COST 200
AS $function$
BEGIN
    RETURN jsonb_set('{}', ARRAY[tenant_id], metadata);
END
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.lower_v1(content text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
RETURN replace(lower((content COLLATE asyncsvc.search)), 'ς'::text, 'σ'::text);

CREATE OR REPLACE FUNCTION asyncsvc.search_grams_v1(content text)
 RETURNS text[]
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.search_needed_v1(keywords text)
 RETURNS text[]
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT coalesce(array_agg(g.gram), '{}')
      FROM (
        SELECT g.gram, rank() OVER (ORDER BY length(g.gram)
                   + (g.gram ~ '^(.[^\x01-\u2e7f]|[^\x01-\u2e7f].)$')::integer DESC) AS place
          FROM unnest(asyncsvc.search_grams_v1(keywords)) AS g (gram)
         GROUP BY g.gram
      ) AS g
     WHERE g.place = 1
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.search_week_v1(at timestamp with time zone)
 RETURNS integer
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT floor(extract(epoch FROM at AT TIME ZONE 'UTC') / 604800)::integer
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.search_week_begin_v1(week integer)
 RETURNS timestamp with time zone
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT (timestamp '1970-01-01' + week * interval '168 hours') AT TIME ZONE 'UTC'
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.search_dialog_v1(tenant_id text, dialog_id text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT E'\x01d' || dialog_id || E'\x01' || tenant_id
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.search_weeks_v1(tenant_id text, week integer, weeks integer)
 RETURNS text[]
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$
    SELECT ARRAY(SELECT E'\x01w' || w || E'\x01' || tenant_id
                   FROM generate_series(week - weeks + 1, week) AS w)
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.search_terms_v1(tenant_id text, dialog_id text, conversation_created_at timestamp with time zone, content text)
 RETURNS text[]
 LANGUAGE plpgsql
 IMMUTABLE PARALLEL SAFE COST 1000
AS $function$
BEGIN
    RETURN asyncsvc.search_grams_v1(content)
        || asyncsvc.search_dialog_v1(tenant_id, dialog_id)
        || asyncsvc.search_weeks_v1(
               tenant_id, asyncsvc.search_week_v1(conversation_created_at), 1);
END
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.clock_goes_back(near timestamp with time zone, zone text)
 RETURNS boolean
 LANGUAGE sql
 STABLE PARALLEL SAFE
AS $function$
    SELECT (near + interval '25 hours') AT TIME ZONE zone
           - (near - interval '25 hours') AT TIME ZONE zone < interval '50 hours'
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.whole_buckets(since timestamp with time zone, until timestamp with time zone, grain text, zone text)
 RETURNS TABLE(first_whole timestamp without time zone, last_whole timestamp without time zone, head_until timestamp with time zone, tail_since timestamp with time zone)
 LANGUAGE plpgsql
 STABLE PARALLEL SAFE ROWS 1
AS $function$
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
$function$;

CREATE OR REPLACE FUNCTION asyncsvc.bucket_labels(since timestamp with time zone, until timestamp with time zone, grain text, zone text)
 RETURNS SETOF timestamp with time zone
 LANGUAGE plpgsql
 STABLE PARALLEL SAFE ROWS 100
AS $function$
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
$function$;
