-- Store tokens of another system under the hashes of their secrets, and record each in the audit.
--
-- Returns: position (from 1, in the order of the arrays; rows come in any order) and outcome:
--   'imported'; 'present', if the tenant has this secret under the same kind; 'taken', if another
--   tenant or kind has it; NULL, if a concurrent transaction stored or deleted it meanwhile.
--   After NULL a second run returns another outcome.
-- Locks: the new rows, until the end of the transaction.
-- Index: the primary keys of api_token_hash and api_token.
-- Notes: :positions and :hashes contain the hashes of each secret under all accepted peppers. The
--   lookup by hash has no tenant condition, because a secret is unique across tenants.
--   On Citus api_token/find_hashes and add_hashes run before, and their rows replace those two parameters.
WITH requested AS MATERIALIZED (
    SELECT r.position, r.id, r.name, r.token_hash, r.pepper_version, r.hint, r.kind, r.scopes,
           r.dialog_id, r.source, r.metadata, r.created_at, r.expires_at
      FROM unnest(:ids::text[], :names::text[], :token_hashes::bytea[], :pepper_versions::smallint[],
                  :hints::text[], :kinds::text[], :scopes::text[], :dialog_ids::text[],
                  :sources::text[], :metadatas::text[], :created_ats::timestamptz[],
                  :expires_ats::timestamptz[])
           WITH ORDINALITY AS r (id, name, token_hash, pepper_version, hint, kind, scopes, dialog_id,
                                 source, metadata, created_at, expires_at, position)
), stored AS MATERIALIZED (
    SELECT r.position, NULL::text COLLATE "C" AS tenant_id, NULL::text COLLATE "C" AS token_id
      FROM requested AS r
     WHERE false
    --? positions, hashes {
     UNION ALL
    SELECT r.position, h.tenant_id, h.token_id
      FROM unnest(:positions::int[], :hashes::bytea[]) AS r (position, hash)
      JOIN asyncsvc.api_token_hash AS h ON h.token_hash = r.hash
    --? }
    --? stored_positions, stored_tenants, stored_ids {
     UNION ALL
    SELECT r.position, r.tenant_id, r.token_id
      FROM unnest(:stored_positions::int[], :stored_tenants::text[], :stored_ids::text[])
           AS r (position, tenant_id, token_id)
    --? }
), own AS MATERIALIZED (
    SELECT t.id, t.kind
      FROM asyncsvc.api_token AS t
     WHERE t.tenant_id = :tenant_id
       AND t.id = ANY (ARRAY(SELECT s.token_id FROM stored AS s WHERE s.tenant_id = :tenant_id))
), hash_rows AS (
    --? !added_ids {
    INSERT INTO asyncsvc.api_token_hash AS h (token_hash, tenant_id, token_id)
    SELECT r.token_hash, :tenant_id, r.id
      FROM requested AS r
     WHERE NOT EXISTS (SELECT 1 FROM stored AS s WHERE s.position = r.position)
    ON CONFLICT (token_hash) DO NOTHING
    RETURNING h.token_id
    --? }
    --? added_ids {
    SELECT a.token_id
      FROM unnest(:added_ids::text[]) AS a (token_id)
    --? }
), created AS (
    INSERT INTO asyncsvc.api_token AS t (
           id, tenant_id, name, token_hash, pepper_version, hint, kind, scopes, dialog_id, source,
           metadata, created_at, created_by, family_id, expires_at)
    SELECT r.id, :tenant_id, r.name, r.token_hash, r.pepper_version, r.hint, r.kind,
           ARRAY(SELECT jsonb_array_elements_text(r.scopes::jsonb)), r.dialog_id, r.source,
           r.metadata::jsonb, coalesce(r.created_at, statement_timestamp()), :actor, r.id,
           r.expires_at
      FROM requested AS r
      JOIN hash_rows AS h ON h.token_id = r.id
    RETURNING t.tenant_id, t.id, t.name, t.kind, t.scopes, t.expires_at
), audit_rows AS (
    INSERT INTO asyncsvc.token_audit (tenant_id, token_id, action, actor, at, detail)
    SELECT c.tenant_id, c.id, 'import', :actor, statement_timestamp(),
           jsonb_build_object('name', c.name, 'kind', c.kind, 'scopes', c.scopes,
                              'expires_at', c.expires_at)
      FROM created AS c
)
SELECT r.position,
       CASE WHEN c.id IS NOT NULL THEN 'imported'
            WHEN o.kind = r.kind THEN 'present'
            WHEN s.tenant_id <> :tenant_id OR o.id IS NOT NULL THEN 'taken' END AS outcome
  FROM requested AS r
  LEFT JOIN created AS c ON c.id = r.id
  LEFT JOIN stored AS s ON s.position = r.position
  LEFT JOIN own AS o ON o.id = s.token_id AND s.tenant_id = :tenant_id
