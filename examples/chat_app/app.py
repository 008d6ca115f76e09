"""A chat service on asyncsvc. An echo answers in place of a model."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from fastapi import Depends, FastAPI, Query, Request, Response, Security
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field, WithJsonSchema, model_validator
from starlette.routing import Match

import asyncsvc
from asyncsvc import (
    APIToken,
    AsyncSvc,
    BudgetStatus,
    Conversation,
    Hit,
    Message,
    Page,
    StoredMessage,
    Usage,
    UsageBucket,
)
from asyncsvc.integrations.fastapi import (
    Problem,
    add_problem_details,
    idempotency_key,
    lifespan,
    mark_replay,
    problems,
    services,
    verified_token,
)

DIALOG: Final = "assistant"
PRICES: Final = {"echo/small": ("0.25", "2"), "echo/large": ("1.25", "10")}  # a million tokens
SHORT: Final = 200
MAX_BODY_BYTES: Final = 2**17  # a question of 10,000 characters, each escaped as 12
HEADERS: Final = {"Cache-Control": "no-store", "Content-Security-Policy": "frame-ancestors 'none'"}
PAGE: Final = Path(__file__).with_name("usage.html").read_text(encoding="utf-8")
SETTINGS: Final = asyncsvc.Settings(retry_timeout=2.0, statement_timeout=10.0)  # fail soon
# The library validates its arguments; these types repeat its limits in the OpenAPI document.
Id = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^/\x00]*$")]
Seq = Annotated[int, Field(ge=0, le=2**31 - 1)]
Line = Annotated[str, Field(max_length=100, pattern=r"^[^\x00]*$")]
Text = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"^[^\x00]*$")]
SearchText = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]*$")]
Day = Annotated[str, WithJsonSchema({"type": "string", "format": "date"})]
Limit = Annotated[int, Query(ge=1, le=100)]
After = Annotated[str | None, Query(description="`next` of the page before", max_length=2048)]
Key = Annotated[str | None, Depends(idempotency_key)]


class _Body(BaseModel, strict=True, extra="forbid"):
    @model_validator(mode="before")
    @classmethod
    def _reject_many_fields(cls, body: object) -> object:
        if isinstance(body, dict) and len(body) > 2 * len(cls.model_fields):  # an error each
            raise ValueError("too many fields")
        return body


class NewConversation(_Body):
    """A conversation to create. With an id of the client a repeated request fails."""

    id: Id | None = None
    user_id: Line = ""
    name: Line | None = None


class Question(_Body):
    """A question of the user."""

    question: Text


class Feedback(_Body):
    """Feedback on a message: 1 is good, -1 is bad, null removes the feedback."""

    thumb: Annotated[int, WithJsonSchema({"enum": [1, -1]})] | None


class Answer(asyncsvc.Appended):
    """The answer of the service, with the positions of question and answer."""

    answer: str


class Caller(NamedTuple):
    """The services and the verified token of a request."""

    chats: asyncsvc.API4ConversationService
    tokens: asyncsvc.APITokenService
    budgets: asyncsvc.BudgetService
    token: APIToken
    tenant: str


async def authenticated(
    svc: Annotated[AsyncSvc, Depends(services)],
    token: Annotated[APIToken, Security(verified_token, scopes=["chat"])],
) -> Caller:
    """Verify the token of a request."""
    return Caller(svc.conversations, svc.tokens, svc.budgets, token, token.tenant_id)


Me = Annotated[Caller, Depends(authenticated)]


@asynccontextmanager
async def database() -> AsyncGenerator[AsyncSvc]:
    """Open the database for the lifetime of the service, and migrate its schema."""
    async with asyncsvc.connect(os.environ["ASYNCSVC_DSN"], settings=SETTINGS) as svc:
        await svc.migrate()
        yield svc


app = FastAPI(
    title="Chat",
    lifespan=lifespan(database),
    redirect_slashes=False,
    responses=problems(401, 403, 422, 503),
)
add_problem_details(app, prefix="urn:example:chat:", all_errors=True)


@app.exception_handler(405)
async def method_not_allowed(request: Request, _: Exception) -> Response:
    """Name all methods of the path: FastAPI names those of 1 route."""
    routes = [it for it in request.app.routes if it.matches(request.scope)[0] != Match.NONE]
    allowed = sorted({method for route in routes for method in route.methods})
    return Problem(status=405).response({"Allow": ", ".join(allowed)})


@app.middleware("http")
async def limit_body(request: Request, serve: Callable[[Request], Awaitable[Response]]) -> Response:
    """Reject a body that is too large or has no valid length, and protect the responses."""
    length = request.headers.get("content-length", "0")
    if not length.isdecimal():
        response = Problem(status=400, detail="the Content-Length is no number").response()
    elif int(length[:20]) > MAX_BODY_BYTES or "transfer-encoding" in request.headers:
        detail = f"the Content-Length must be at most {MAX_BODY_BYTES:,}"
        response = Problem(status=413, detail=detail).response()
    else:
        response = await serve(request)
    response.headers.update(HEADERS)
    return response


@app.post("/conversations", tags=["chat"], status_code=201, responses=problems(400, 409, 413))
async def create_conversation(me: Me, new: NewConversation) -> Conversation:
    """Create a conversation."""
    return await me.chats.create(tenant_id=me.tenant, dialog_id=DIALOG, **new.model_dump())


@app.get("/conversations", tags=["chat"])
async def list_conversations(me: Me, after: After = None, limit: Limit = 20) -> Page[Conversation]:
    """List conversations, newest first."""
    return await me.chats.get_list(
        tenant_id=me.tenant, dialog_id=DIALOG, items_per_page=limit, after=after, total="none"
    )


@app.delete("/conversations/{id}", tags=["chat"], status_code=204, responses=problems(404))
async def delete_conversation(me: Me, id: Id) -> None:
    """Delete a conversation with its messages."""
    if not await me.chats.delete_by_id(id, tenant_id=me.tenant):
        raise asyncsvc.NotFound("conversation")


def ask_model(question: str) -> tuple[str, Usage]:
    """Return an echo, and its usage with the cost. A long question needs the large model."""
    answer = f"You said: {question}"
    model = "echo/small" if len(question) <= SHORT else "echo/large"
    read, written = len(question.split()), len(answer.split())
    input_price, output_price = map(Decimal, PRICES[model])
    cost = (read * input_price + written * output_price) / 10**6
    return answer, Usage(input_tokens=read, output_tokens=written, cost=cost, model=model)


@app.post(
    "/conversations/{id}/turns", tags=["chat"], responses=problems(400, 402, 404, 409, 413, 429)
)
async def append_turn(me: Me, id: Id, body: Question, key: Key, response: Response) -> Answer:
    """Ask a question. A request with the same idempotency key is applied exactly once."""
    await me.budgets.check(tenant_id=me.tenant, token_id=me.token.id, dialog_id=DIALOG)
    text = body.question
    echo, usage = ask_model(text)
    messages = [Message(role="user", content=text), Message(role="assistant", content=echo)]
    turn = asyncsvc.Turn(messages=messages, usage=usage, token_id=me.token.id)
    appended = await me.chats.append_message(id, turn, tenant_id=me.tenant, idempotency_key=key)
    mark_replay(response, appended)
    return Answer(answer=echo, **dict(appended))


@app.get("/conversations/{id}/messages", tags=["chat"], responses=problems(404))
async def list_messages(me: Me, id: Id, after: Seq = 0, limit: Limit = 20) -> list[StoredMessage]:
    """List messages, oldest first. Pass the last `seq` as `after` to get the next page."""
    return await me.chats.messages(id, tenant_id=me.tenant, after=after, limit=limit)


@app.put("/conversations/{id}/thumbs/{seq}", tags=["chat"], responses=problems(400, 404, 413))
async def set_feedback(me: Me, id: Id, seq: Seq, feedback: Feedback) -> StoredMessage:
    """Set or remove the feedback on an answer."""
    return await me.chats.set_feedback(id, seq, feedback.thumb, tenant_id=me.tenant)


@app.get("/search", tags=["chat"])
async def search(me: Me, keywords: SearchText, after: After = None, limit: Limit = 20) -> Page[Hit]:
    """Find the newest conversations with a message that contains the keywords."""
    return await me.chats.search(keywords, tenant_id=me.tenant, after=after, limit=limit)


@app.get("/statistics", tags=["usage"])
async def statistics(
    me: Me, from_date: Day, to_date: Day, tz: str = "UTC", group_by: Literal["model"] | None = None
) -> list[UsageBucket]:
    """Return the usage of each day, including both dates; with `group_by` of each model."""
    return await me.chats.stats(
        tenant_id=me.tenant, from_date=from_date, to_date=to_date, tz=tz, group_by=group_by, top=6
    )


@app.get("/budgets", tags=["usage"])
async def budgets(me: Me) -> list[BudgetStatus]:
    """Return each budget that applies to the token, the tightest first."""
    return await me.budgets.status(tenant_id=me.tenant, token_id=me.token.id, dialog_id=DIALOG)


@app.get("/usage", response_class=HTMLResponse, include_in_schema=False)
async def usage_page() -> str:
    """Return a page that asks for a token and plots the usage of the last 30 days."""
    return PAGE


@app.delete("/tokens/{id}", tags=["tokens"], responses=problems(404))
async def revoke_token(me: Me, id: Id) -> APIToken:
    """Revoke a token. `current` is the token of the request; others need the scope `admin`."""
    if id != "current" and not {"admin", "*"} & set(me.token.scopes):
        raise asyncsvc.InsufficientScope("the token lacks admin")
    token_id = me.token.id if id == "current" else id
    return await me.tokens.revoke(token_id, tenant_id=me.tenant, actor=me.token.id)
