"""The token lookup as RAGFlow does it: peewee, blocking, in threads, two queries, clear text.

Re-created from what it does, not copied: the token is a column with an index that is not unique, a
request asks for the token's row and then for the user whose id is the tenant's.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import peewee
from playhouse.pool import PooledPostgresqlDatabase


class Lookup:
    """RAGFlow's tables, and its way to look a token up."""

    def __init__(self, dsn: str) -> None:
        """Open a pool on this database, of as many connections as there may be threads."""
        parts = urllib.parse.urlsplit(dsn)
        self._database = PooledPostgresqlDatabase(
            parts.path[1:],
            host=parts.hostname,
            port=parts.port,
            user=urllib.parse.unquote(parts.username or ""),
            password=urllib.parse.unquote(parts.password or ""),
            max_connections=64,
            stale_timeout=300,
        )

        class Base(peewee.Model):
            create_time = peewee.BigIntegerField(null=True, index=True)
            update_time = peewee.BigIntegerField(null=True, index=True)

            class Meta:
                database = self._database
                schema = "ragflow"

        class User(Base):
            id = peewee.CharField(max_length=32, primary_key=True)
            access_token = peewee.CharField(max_length=255, null=True, index=True)
            nickname = peewee.CharField(max_length=100)
            email = peewee.CharField(max_length=255, index=True)
            status = peewee.CharField(max_length=1, default="1", index=True)

            class Meta:
                table_name = "user"

        class APIToken(Base):
            tenant_id = peewee.CharField(max_length=32, index=True)
            token = peewee.CharField(max_length=255, index=True)
            dialog_id = peewee.CharField(max_length=32, null=True, index=True)
            source = peewee.CharField(max_length=16, null=True, index=True)
            beta = peewee.CharField(max_length=255, null=True, index=True)

            class Meta:
                table_name = "api_token"
                primary_key = peewee.CompositeKey("tenant_id", "token")

        self._user, self._token = User, APIToken

    def create(self, tokens: Iterable[tuple[str, str]]) -> None:
        """Create the tables, with these tokens and their tenants, each a user."""
        rows = list(tokens)
        self._database.execute_sql("DROP SCHEMA IF EXISTS ragflow CASCADE")
        self._database.execute_sql("CREATE SCHEMA ragflow")
        self._database.create_tables([self._user, self._token])
        with self._database.atomic():
            self._token.insert_many(
                {"token": token, "tenant_id": tenant} for token, tenant in rows
            ).execute()
            self._user.insert_many(
                {"id": tenant, "nickname": tenant, "email": f"{tenant}@example.org"}
                for tenant in sorted({tenant for _, tenant in rows})
            ).execute()

    async def verify(self, token: str) -> str:
        """Return the tenant of a token, asked in a thread of its own, as RAGFlow's routes do."""
        with ThreadPoolExecutor() as threads:  # a new one for each call, as there
            asked = asyncio.get_running_loop().run_in_executor(threads, self._verify, token)
            return await asked

    def _verify(self, token: str) -> str:
        with self._database.connection_context():
            (found,) = self._token.select().where(self._token.token == token)
            (user,) = self._user.select().where(
                self._user.id == found.tenant_id, self._user.status == "1"
            )
            return str(user.id)

    def close(self) -> None:
        """Close all connections."""
        self._database.close_all()
