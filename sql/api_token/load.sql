-- Stores tokens that another system issued, by the hash of their secrets, and notes each in the
-- audit. A secret that is here already, under any pepper that the caller knows, is left as it is.
-- It returns what became of each record, in no order: loaded, present (this tenant has it, of the
-- same kind), taken (another tenant, or a token of another kind), or NULL where another session
-- stored the secret at this moment: asked again, that is one of the other two. The statement looks
-- for a secret at all tenants, so the tenant is no condition.
--
-- :positions and :hashes are the hashes of the records by every known pepper; the columns are those
-- of the records, in the order of their positions, from 1.
--
-- Locks: the new rows. Index: the unique index on token_hash.
WITH given AS MATERIALIZED (
    SELECT r.position, r.id, r.name, r.token_hash, r.hint, r.kind, r.scopes, r.dialog_id, r.source,
           r.metadata, r.created_at, r.expires_at
      FROM unnest(:ids::text[], :names::text[], :token_hashes::bytea[], :hints::text[],
                  :kinds::text[], :scopes::text[], :dialog_ids::text[], :sources::text[],
                  :metadatas::text[], :created_ats::timestamptz[], :expires_ats::timestamptz[])
           WITH ORDINALITY AS r (id, name, token_hash, hint, kind, scopes, dialog_id, source,
                                 metadata, created_at, expires_at, position)
), known AS MATERIALIZED (
    SELECT h.position, t.tenant_id, t.kind
      FROM unnest(:positions::int[], :hashes::bytea[]) AS h (position, hash)
      JOIN asyncsvc.api_token AS t ON t.token_hash = h.hash
), loaded AS (
    INSERT INTO asyncsvc.api_token AS t (
           id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, dialog_id, source,
           metadata, created_at, created_by, expires_at)
    SELECT g.id, :tenant_id, g.name, g.token_hash, :pepper_version, g.hint, g.kind,
           ARRAY(SELECT jsonb_array_elements_text(g.scopes::jsonb)), g.dialog_id, g.source,
           g.metadata::jsonb, coalesce(g.created_at, statement_timestamp()), :actor, g.expires_at
      FROM given AS g
     WHERE NOT EXISTS (SELECT 1 FROM known AS k WHERE k.position = g.position)
    ON CONFLICT (token_hash) DO NOTHING
    RETURNING t.tenant_id, t.id, t.name, t.kind, t.scopes, t.expires_at
), audited AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT l.tenant_id, l.id, 'import', :actor, statement_timestamp(),
           jsonb_build_object('name', l.name, 'kind', l.kind, 'scopes', l.scopes,
                              'expires_at', l.expires_at)
      FROM loaded AS l
)
SELECT g.position,
       CASE WHEN l.id IS NOT NULL THEN 'loaded'
            WHEN k.tenant_id = :tenant_id AND k.kind = g.kind THEN 'present'
            WHEN k.tenant_id IS NOT NULL THEN 'taken' END AS outcome
  FROM given AS g
  LEFT JOIN loaded AS l ON l.id = g.id
  LEFT JOIN known AS k ON k.position = g.position
