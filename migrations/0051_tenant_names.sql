-- Tenants that people made by registering leave the name space of those that operators named: their
-- names begin with ~. The audit log says which they are. No other row changes, and no name is lost.

-- The owner, who migrates, sees no rows otherwise.
ALTER TABLE tenants NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_log NO FORCE ROW LEVEL SECURITY;
WITH self_made AS (
    SELECT t.id, '~' || left(t.name, 199) AS name
    FROM tenants t
    WHERE NOT starts_with(t.name, '~') AND EXISTS (
        SELECT FROM audit_log a
        WHERE a.tenant_id = t.id AND a.action = 'user.registered' AND a.result = 'done'
          AND a.detail = 'owner of a new tenant')
), placed AS (
    SELECT id, name, row_number() OVER (PARTITION BY name ORDER BY id) > 1
                     OR EXISTS (SELECT FROM tenants t WHERE t.name = self_made.name) AS taken
    FROM self_made
)
UPDATE tenants t
SET name = CASE WHEN taken THEN left(placed.name, 160) || ' ' || t.id ELSE placed.name END
FROM placed WHERE placed.id = t.id;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;

COMMENT ON COLUMN tenants.name IS
    'Unique. Operators give names that do not begin with ~; the name of a tenant that somebody made '
    'by registering does.';
