"""Let Alembic generate migrations of the application's tables, and of no table of asyncsvc."""

import asyncio
import os

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, MetaData, Table, Text
from sqlalchemy.ext.asyncio import create_async_engine

DSN = os.environ["ASYNCSVC_DSN"]
METADATA = MetaData()
Table("parcel", METADATA, Column("number", Text, primary_key=True))


def include_name(name: str | None, type_: str, _parent_names: object) -> bool:
    """Exclude the schema of asyncsvc. Its own `migrate` changes it."""
    return type_ != "schema" or name != "asyncsvc"


def changes(connection: Connection) -> list[str]:
    """Return what autogenerate would write. In env.py the options go to `context.configure`."""
    context = MigrationContext.configure(
        connection,
        opts={
            "target_metadata": METADATA,
            "include_schemas": True,
            "include_name": include_name,
        },
    )
    return [f"{change[0]} {change[1].name}" for change in compare_metadata(context, METADATA)]


async def main() -> None:
    engine = create_async_engine(DSN.replace("postgresql://", "postgresql+asyncpg://", 1))
    async with engine.connect() as connection:
        print(await connection.run_sync(changes))
        # > ['add_table parcel']
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main())
