"""Test the routes of a FastAPI application, in a transaction that is rolled back."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import asyncpg
import httpx
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI, Request

import asyncsvc
from asyncsvc import embedded


# The application: its routes get the services from a dependency.
@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with asyncsvc.connect("postgresql://app@database.internal/app") as svc:
        app.state.svc = svc
        yield


app = FastAPI(lifespan=lifespan)


def services(request: Request) -> asyncsvc.Services:
    svc: asyncsvc.Services = request.app.state.svc
    return svc


@app.post("/conversations", status_code=201)
async def create(svc: Annotated[asyncsvc.Services, Depends(services)]) -> dict[str, str]:
    chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
    return {"id": chat.id}


# The fixtures belong into conftest.py.
@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def dsn(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A migrated database on a server of its own."""
    directory: Path = tmp_path_factory.mktemp("postgres")
    async with embedded.running(directory, options={"fsync": "off"}) as server:
        async with asyncsvc.connect(server.dsn) as svc:
            await svc.migrate()
        yield server.dsn


@pytest_asyncio.fixture
async def svc(dsn: str) -> AsyncIterator[asyncsvc.Services]:
    """The services in a transaction that is rolled back: no test sees the rows of another."""
    async with asyncpg.create_pool(dsn, min_size=0) as pool, pool.acquire() as connection:
        transaction = connection.transaction()
        await transaction.start()
        yield asyncsvc.AsyncSvc(pool).on(connection)
        await transaction.rollback()


@pytest_asyncio.fixture
async def client(svc: asyncsvc.Services) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, whose routes use `svc`. It does not run the lifespan."""
    app.dependency_overrides[services] = lambda: svc
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    app.dependency_overrides.clear()


@pytest.mark.asyncio
async def test_a_route_stores_a_conversation(
    client: httpx.AsyncClient, svc: asyncsvc.Services
) -> None:
    response = await client.post("/conversations")
    assert response.status_code == httpx.codes.CREATED
    chat = await svc.conversations.get_by_id(response.json()["id"], tenant_id="acme")
    assert chat.dialog_id == "support"


@pytest.mark.asyncio
async def test_the_database_is_empty_again(svc: asyncsvc.Services) -> None:
    assert (await svc.conversations.get_list(tenant_id="acme")).total == 0
