"""Test the routes of a FastAPI application, on a store without rows for each test."""

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
import pytest_asyncio
from fastapi import Depends, FastAPI

import asyncsvc
from asyncsvc.integrations.fastapi import lifespan, services

# The application: its routes get the services from a dependency.
app = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect("postgresql://app@database.internal/app")))


@app.post("/conversations", status_code=201)
async def create(svc: Annotated[asyncsvc.Services, Depends(services)]) -> dict[str, str]:
    chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
    return {"id": chat.id}


# The fixture belongs into conftest.py.
@pytest_asyncio.fixture
async def client(asyncsvc_services: asyncsvc.AsyncSvc) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, whose routes use the fixture. It does not run the lifespan."""
    app.dependency_overrides[services] = lambda: asyncsvc_services
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    app.dependency_overrides.clear()


@pytest.mark.asyncio
async def test_a_route_stores_a_conversation(
    client: httpx.AsyncClient, asyncsvc_services: asyncsvc.AsyncSvc
) -> None:
    response = await client.post("/conversations")
    assert response.status_code == httpx.codes.CREATED
    id = response.json()["id"]
    chat = await asyncsvc_services.conversations.get_by_id(id, tenant_id="acme")
    assert chat.dialog_id == "support"


@pytest.mark.asyncio
async def test_the_store_is_empty_again(asyncsvc_services: asyncsvc.AsyncSvc) -> None:
    assert (await asyncsvc_services.conversations.get_list(tenant_id="acme")).total == 0
