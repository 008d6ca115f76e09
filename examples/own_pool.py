"""An application with its own asyncpg pool and its own table beside the conversations.

Run it with `uvicorn examples.own_pool:app`; `DATABASE_URL` names the database. One transaction
writes a row of the application and a turn of a conversation: both or neither are stored.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypedDict

import asyncpg
from fastapi import Depends, FastAPI, Request

from asyncsvc import Appended, AsyncSvc, Conversation, Message, Page, Turn, UsageBucket
from asyncsvc.integrations.fastapi import add_problem_details, services

TENANT = "acme"
PARCELS = "CREATE TABLE IF NOT EXISTS parcel (conversation_id text, number text)"

if TYPE_CHECKING:  # asyncpg.Pool has a type parameter for type checkers only
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Pool = asyncpg.Pool


class State(TypedDict):
    """The state of the running application. The dependency `services` reads `asyncsvc`."""

    pool: Pool
    asyncsvc: AsyncSvc


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncGenerator[State]:
    """Open the pool, pass it to the services, and close it at the end."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"]) as pool:
        svc = AsyncSvc(pool)
        await svc.migrate()
        await pool.execute(PARCELS)
        yield {"pool": pool, "asyncsvc": svc}


app = FastAPI(lifespan=lifespan)
add_problem_details(app)


def own_pool(request: Request) -> Pool:
    """Return the pool of the application."""
    pool: Pool = request.state.pool
    return pool


Services = Annotated[AsyncSvc, Depends(services)]
OwnPool = Annotated[Pool, Depends(own_pool)]


@app.post("/conversations")
async def create(svc: Services, user_id: str) -> Conversation:
    """Create a conversation."""
    return await svc.conversations.create(tenant_id=TENANT, dialog_id="support", user_id=user_id)


@app.get("/conversations")
async def get_list(svc: Services, user_id: str, after: str | None = None) -> Page[Conversation]:
    """Return a page of the conversations of a user, newest first."""
    return await svc.conversations.get_list(
        tenant_id=TENANT, user_id=user_id, items_per_page=20, after=after
    )


@app.post("/conversations/{id}/parcels/{number}")
async def ask_for_parcel(svc: Services, pool: OwnPool, id: str, number: str) -> Appended:
    """Store a question about a parcel and the parcel in one transaction."""
    turn = Turn(messages=[Message(role="user", content=f"Where is parcel {number}?")])
    async with pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO parcel VALUES ($1, $2)", id, number)
        return await svc.on(connection).conversations.append_message(id, turn, tenant_id=TENANT)


@app.get("/usage")
async def usage(svc: Services, from_date: str, to_date: str) -> list[UsageBucket]:
    """Return the usage of each day."""
    return await svc.conversations.stats(tenant_id=TENANT, from_date=from_date, to_date=to_date)
