"""Let PostgreSQL separate the tenants too, for a role that owns no table."""

import asyncio
import os

import asyncpg

import asyncsvc
from asyncsvc import Settings

OWNER_DSN = os.environ["ASYNCSVC_DSN"]
SETTINGS = Settings(row_level_security=True)
ROLE = """
DO $$ BEGIN CREATE ROLE recipe_app; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
GRANT USAGE ON SCHEMA asyncsvc TO recipe_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA asyncsvc TO recipe_app;
REVOKE INSERT, UPDATE, DELETE ON asyncsvc.migration, asyncsvc.maintenance FROM recipe_app;
"""


async def set_up() -> None:
    """Enable the policies and create the role, as the owner of the tables, after each upgrade."""
    async with asyncpg.create_pool(OWNER_DSN, min_size=0) as pool:
        await asyncsvc.AsyncSvc(pool, settings=SETTINGS).migrate()
        await pool.execute(ROLE)


async def main() -> None:
    await set_up()
    # In production the role has a password and logs in. Here the owner acts as the role.
    async with asyncpg.create_pool(
        OWNER_DSN, min_size=0, server_settings={"role": "recipe_app"}
    ) as pool:
        svc = asyncsvc.AsyncSvc(pool, settings=SETTINGS)
        await svc.check()  # raises if the policies do not restrict this role
        await svc.conversations.create(tenant_id="acme", dialog_id="support")
        page = await svc.conversations.get_list(tenant_id="acme")
        print("with a tenant:", page.total)
        # > with a tenant: 1
        rows = await pool.fetchval("SELECT count(*) FROM asyncsvc.conversation")
        print("a query without a tenant:", rows)
        # > a query without a tenant: 0


if __name__ == "__main__":
    asyncio.run(main())
