"""Verify an API token in a FastAPI dependency, with scopes, 401 and 403."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

import asyncsvc
from asyncsvc import APIToken, Conversation, InsufficientScope, InvalidToken, Page

DSN = os.environ["ASYNCSVC_DSN"]
Header = Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with asyncsvc.connect(DSN) as svc:
        app.state.svc = svc
        yield


app = FastAPI(lifespan=lifespan)


def token_with(*scopes: str) -> Callable[[Request, Header], Awaitable[APIToken]]:
    """Return a dependency that verifies the bearer token and its scopes."""

    async def verify(request: Request, header: Header) -> APIToken:
        svc: asyncsvc.AsyncSvc = request.app.state.svc
        try:
            return await svc.tokens.verify(header.credentials if header else "", scopes=scopes)
        except InvalidToken as error:
            raise HTTPException(401, str(error), {"WWW-Authenticate": "Bearer"}) from error
        except InsufficientScope as error:
            raise HTTPException(403, str(error)) from error

    return verify


@app.get("/conversations")
async def list_conversations(
    request: Request, token: Annotated[APIToken, Depends(token_with("chat"))]
) -> Page[Conversation]:
    svc: asyncsvc.AsyncSvc = request.app.state.svc
    # The tenant comes from the token, never from the request.
    return await svc.conversations.get_list(tenant_id=token.tenant_id)


async def main() -> None:
    async with lifespan(app):
        svc: asyncsvc.AsyncSvc = app.state.svc
        chat = await svc.tokens.create(tenant_id="acme", name="web shop", scopes=["chat"])
        other = await svc.tokens.create(tenant_id="acme", name="billing", scopes=["usage"])
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for secret in (chat.secret, other.secret):
                headers = {"Authorization": f"Bearer {secret.get_secret_value()}"}
                response = await client.get("/conversations", headers=headers)
                print(response.status_code, response.text)
            # > 200 {"total":0,"items":[],"next":null,"total_capped":false}
            # > 403 {"detail":"the token lacks chat"}
            response = await client.get("/conversations")
            print(response.status_code, response.headers["WWW-Authenticate"])
            # > 401 Bearer


if __name__ == "__main__":
    asyncio.run(main())
