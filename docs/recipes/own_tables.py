"""Store a turn and a row of the application in one transaction: both or neither."""

import asyncio
import os

import asyncpg

import asyncsvc
from asyncsvc import Message, NotFound, Turn

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncpg.create_pool(DSN, min_size=0) as pool:
        svc = asyncsvc.AsyncSvc(pool)
        await pool.execute("CREATE TABLE parcel (number text PRIMARY KEY, conversation_id text)")
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        turn = Turn(messages=[Message(role="user", content="Where is parcel 7?")])

        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO parcel VALUES ('7', $1)", chat.id)
            await svc.on(connection).conversations.append_message(chat.id, turn, tenant_id="acme")

        try:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO parcel VALUES ('8', 'absent')")
                mine = svc.on(connection)
                await mine.conversations.append_message("absent", turn, tenant_id="acme")
        except NotFound as error:
            print(error)
            # > no such conversation

        print([row["number"] for row in await pool.fetch("SELECT number FROM parcel")])
        # > ['7']


if __name__ == "__main__":
    asyncio.run(main())
