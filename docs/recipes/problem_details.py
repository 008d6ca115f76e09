"""Answer errors of the library as problem details (RFC 9457)."""

import asyncio
import os
from http import HTTPStatus

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import asyncsvc
from asyncsvc import Conversation

DSN = os.environ["ASYNCSVC_DSN"]
STATUS: dict[type[Exception], HTTPStatus] = {
    asyncsvc.InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    asyncsvc.NotFound: HTTPStatus.NOT_FOUND,
    asyncsvc.AlreadyExists: HTTPStatus.CONFLICT,
    asyncsvc.Conflict: HTTPStatus.CONFLICT,  # also IdempotencyConflict, StaleSequence
    asyncsvc.InvalidToken: HTTPStatus.UNAUTHORIZED,
    asyncsvc.InsufficientScope: HTTPStatus.FORBIDDEN,
    asyncsvc.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,  # also timeouts, a full pool
}
HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "2"},
}
app = FastAPI()


@app.exception_handler(asyncsvc.AsyncSvcError)
async def problem(_request: Request, error: Exception) -> JSONResponse:
    """Return the problem of the most specific class of the error."""
    status = next(
        (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    body = {"type": "about:blank", "title": status.phrase, "status": status}
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:  # other texts are for the operator
        body["detail"] = str(error)
    return JSONResponse(body, status, HEADERS.get(status), media_type="application/problem+json")


@app.get("/conversations/{id}")
async def get(request: Request, id: str) -> Conversation:
    svc: asyncsvc.AsyncSvc = request.app.state.svc
    return await svc.conversations.get_by_id(id, tenant_id="acme")


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        app.state.svc = svc
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            for id in ("absent", "x" * 200):
                response = await client.get(f"/conversations/{id}")
                print(response.status_code, response.json()["detail"])
            # > 404 no such conversation
            # > 422 id: ...


if __name__ == "__main__":
    asyncio.run(main())
