"""A chat service on asyncsvc, as an application writes it. The chat is with an echo."""

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeVar

from fastapi import Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from starlette.exceptions import HTTPException
from starlette.routing import Match

import asyncsvc
from asyncsvc import APIToken, Appended, Conversation, Hit, Message, StoredMessage, UsageBucket

DIALOG: Final = "assistant"
MOST_BYTES: Final = 2**20
PAGE: Final = Path(__file__).with_name("usage.html").read_text(encoding="utf-8")
# Whoever waits for an answer would rather be told soon, and ask again.
SETTINGS: Final = asyncsvc.Settings(retry_timeout=2.0, statement_timeout=10.0)
# The library checks what it is given; these say the same in the document.
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\x00]*$")]
Seq = Annotated[int, Field(ge=0, le=2**31 - 1)]
Line = Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")]
Text = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"^[^\x00]*$")]
SearchText = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(description="`next` of the page before", max_length=2048)]
Key = Annotated[str | None, Header(alias="Idempotency-Key", pattern=r"^[!-~]{1,255}$")]
T = TypeVar("T")


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class NewConversation(_Body):
    """A conversation to begin; with an id of the caller's own it can be begun once."""

    id: Id | None = None
    user_id: Line = ""
    name: Line | None = None


class Question(_Body):
    """What a person says."""

    question: Text


class Feedback(_Body):
    """A judgement, good or bad; null withdraws it."""

    thumb: Annotated[int, WithJsonSchema({"enum": [1, -1]})] | None


class Answer(Appended):
    """What the service says, and where question and answer are in the conversation."""

    answer: str


class Page(BaseModel, Generic[T]):
    """A part of a list, and the cursor of the next one."""

    items: list[T]
    next: str | None


class Problem(BaseModel):
    """What went wrong (RFC 9457): programs go by `type` and `status`, people read `detail`."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str | None = None


PROBLEM: Final = "application/problem+json"
ANSWERS: Final[Mapping[type, tuple[int, Mapping[str, str]]]] = {
    asyncsvc.InvalidInput: (422, {}),
    asyncsvc.NotFound: (404, {}),
    asyncsvc.AlreadyExists: (409, {}),
    asyncsvc.Conflict: (409, {}),
    asyncsvc.InvalidToken: (401, {"WWW-Authenticate": "Bearer"}),
    asyncsvc.InsufficientScope: (403, {"WWW-Authenticate": 'Bearer error="insufficient_scope"'}),
    asyncsvc.Unavailable: (503, {"Retry-After": "2"}),
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what an operation documents: these errors, and those that all may have."""
    content = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"content": content} for status in sorted({*statuses, 401, 403, 422, 503})}


def problem(status: int, headers: Mapping[str, str], **told: str) -> Response:
    """Return a problem. It may tell of a key of the caller's own, as long as it likes."""
    told = {name: text[:500].encode(errors="replace").decode() for name, text in told.items()}
    body = Problem(status=status, title=HTTPStatus(status).phrase, **told)
    return Response(body.model_dump_json(exclude_none=True), status, headers, media_type=PROBLEM)


async def answer(request: Request, error: Exception) -> Response:
    """Answer an error: the library's, FastAPI's own, or one that nobody foresaw."""
    match error:
        case asyncsvc.AsyncSvcError():
            answers = (ANSWERS[kind] for kind in type(error).__mro__ if kind in ANSWERS)
            status, headers = next(answers, (500, {}))
            told = {"type": f"urn:example:chat:{type(error).__name__}", "detail": str(error)}
            if status >= HTTPStatus.INTERNAL_SERVER_ERROR:  # for whoever runs the service
                logging.getLogger(__name__).error("%s: %s", request.url.path, told.pop("detail"))
            return problem(status, headers, **told)
        case RequestValidationError():
            wrong = [f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors()]
            return problem(422, {}, detail="; ".join(wrong))
        case HTTPException(status_code=405):  # FastAPI asks one of a path's routes for its methods
            routes = [it for it in request.app.routes if it.matches(request.scope)[0] != Match.NONE]
            allowed = sorted({method for route in routes for method in route.methods})
            return problem(405, {"Allow": ", ".join(allowed)})
        case HTTPException():
            return problem(error.status_code, error.headers or {}, detail=error.detail)
    return problem(500, {})  # the server logs it


class Caller(NamedTuple):
    """Who asks: all that is asked is of the token's tenant."""

    chats: asyncsvc.API4ConversationService
    tokens: asyncsvc.APITokenService
    token: APIToken
    tenant: str


bearer = HTTPBearer(auto_error=False, description="As `asyncsvc tokens create` issues it.")
Given = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def authenticated(request: Request, given: Given) -> Caller:
    """Return who asks, or refuse."""
    svc: asyncsvc.AsyncSvc = request.state.svc
    token = await svc.tokens.verify(given.credentials if given else "", scopes=["chat"])
    return Caller(svc.conversations, svc.tokens, token, token.tenant_id)


Me = Annotated[Caller, Depends(authenticated)]


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[dict[str, asyncsvc.AsyncSvc]]:
    """Hold the database for as long as the service runs, and bring its schema up to date."""
    async with asyncsvc.connect(os.environ["ASYNCSVC_DSN"], settings=SETTINGS) as svc:
        await svc.migrate()
        yield {"svc": svc}


app = FastAPI(title="Chat", lifespan=lifespan, redirect_slashes=False)
for kind in (asyncsvc.AsyncSvcError, RequestValidationError, HTTPException, Exception):
    app.add_exception_handler(kind, answer)


@app.middleware("http")
async def limit_body(request: Request, serve: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse a body that could fill the memory."""
    length = int(request.headers.get("content-length", 0))
    if length > MOST_BYTES or "transfer-encoding" in request.headers:
        return problem(413, {}, detail=f"a body says its length: at most {MOST_BYTES:,} bytes")
    return await serve(request)


@app.post("/conversations", tags=["chat"], status_code=201, responses=problems(400, 409, 413))
async def create_conversation(me: Me, new: NewConversation) -> Conversation:
    """Begin a conversation."""
    return await me.chats.create(tenant_id=me.tenant, dialog_id=DIALOG, **new.model_dump())


@app.get("/conversations", tags=["chat"], responses=problems())
async def list_conversations(me: Me, after: After = None, limit: Limit = 20) -> Page[Conversation]:
    """List conversations, newest first."""
    page = await me.chats.get_list(DIALOG, me.tenant, 1, limit, after=after, total="none")
    return Page(items=page.items, next=page.next)


@app.delete("/conversations/{id}", tags=["chat"], status_code=204, responses=problems(404))
async def delete_conversation(me: Me, id: Id) -> None:
    """Delete a conversation with its messages."""
    if not await me.chats.delete_by_id(id, tenant_id=me.tenant):
        raise asyncsvc.NotFound("no such conversation")


@app.post("/conversations/{id}/turns", tags=["chat"], responses=problems(400, 404, 409, 413))
async def append_turn(me: Me, id: Id, asked: Question, key: Key = None) -> Answer:
    """Ask a question. With a key it is asked once, however often it is sent."""
    echo = f"You said: {asked.question}"
    said = [Message(role="user", content=asked.question), Message(role="assistant", content=echo)]
    tokens = sum(len(message.content.split()) for message in said)
    turn = asyncsvc.Turn(messages=said, tokens=tokens, token_id=me.token.id)
    appended = await me.chats.append_message(id, turn, tenant_id=me.tenant, idempotency_key=key)
    return Answer(answer=echo, **dict(appended))


@app.get("/conversations/{id}/messages", tags=["chat"], responses=problems(404))
async def list_messages(me: Me, id: Id, after: Seq = 0, limit: Limit = 20) -> list[StoredMessage]:
    """List messages, oldest first; the next page comes after the last `seq` of this one."""
    return await me.chats.messages(id, tenant_id=me.tenant, after_seq=after, limit=limit)


@app.put("/conversations/{id}/thumbs/{seq}", tags=["chat"], responses=problems(400, 404, 413))
async def set_feedback(me: Me, id: Id, seq: Seq, given: Feedback) -> StoredMessage:
    """Judge an answer."""
    return await me.chats.set_feedback(id, seq, given.thumb, tenant_id=me.tenant)


@app.get("/search", tags=["chat"], responses=problems())
async def search(me: Me, keywords: SearchText, after: After = None, limit: Limit = 20) -> Page[Hit]:
    """Find the newest conversations in which the keywords were said."""
    hits = await me.chats.search(me.tenant, keywords, after=after, limit=limit)
    return Page(items=hits.items, next=hits.next)


@app.get("/statistics", tags=["usage"], responses=problems())
async def statistics(me: Me, from_date: Day, to_date: Day, tz: str = "UTC") -> list[UsageBucket]:
    """Tell how much was used on each day, both ends included."""
    return await me.chats.stats(me.tenant, from_date, to_date, tz=tz)


@app.get("/usage", tags=["usage"], response_class=HTMLResponse)
async def usage_page() -> str:
    """Show a page that asks for a token and plots the last 30 days."""
    return PAGE


@app.delete("/tokens/{id}", tags=["tokens"], responses=problems(404))
async def revoke_token(me: Me, id: Id) -> APIToken:
    """Revoke a token: `current` is that of the request, others take the scope `admin`."""
    if id != "current" and not {"admin", "*"} & set(me.token.scopes):
        raise asyncsvc.InsufficientScope("the token lacks admin")
    own = me.token.id if id == "current" else id
    return await me.tokens.revoke(own, tenant_id=me.tenant, actor=me.token.id)


app.openapi()["components"]["schemas"]["Problem"] = Problem.model_json_schema()
