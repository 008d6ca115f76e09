# --8<-- [start:application]
"""A chat service: conversations of many tenants, over HTTP."""

import os
from datetime import date
from typing import Annotated

from fastapi import Depends, FastAPI, Security
from pydantic import BaseModel

import asyncsvc
from asyncsvc import (
    APIToken,
    Appended,
    AsyncSvc,
    Conversation,
    Hit,
    Message,
    Page,
    StoredMessage,
    Turn,
    UsageBucket,
)
from asyncsvc.integrations.fastapi import (
    add_problem_details,
    idempotency_key,
    lifespan,
    services,
    verified_token,
)

app = FastAPI(
    title="Chat",
    lifespan=lifespan(lambda: asyncsvc.connect(os.environ["ASYNCSVC_DSN"])),
)

Services = Annotated[AsyncSvc, Depends(services)]


@app.get("/ready")
async def ready(svc: Services) -> dict[str, str]:
    await svc.check()  # raises if a migration is missing
    return {"database": "ready"}


# --8<-- [end:application]
# --8<-- [start:token]
Token = Annotated[APIToken, Security(verified_token, scopes=["chat"])]


@app.get("/me")
async def me(token: Token) -> dict[str, str]:
    return {"tenant": token.tenant_id, "token": token.name}


# --8<-- [end:token]
# --8<-- [start:errors]
add_problem_details(app)


# --8<-- [end:errors]
# --8<-- [start:conversations]
class NewConversation(BaseModel):
    id: str | None = None
    user_id: str = ""


@app.post("/conversations", status_code=201)
async def create(svc: Services, token: Token, new: NewConversation) -> dict[str, str]:
    chat = await svc.conversations.create(
        tenant_id=token.tenant_id, dialog_id="support", id=new.id, user_id=new.user_id
    )
    return {"id": chat.id}


@app.get("/conversations")
async def get_list(
    svc: Services, token: Token, user_id: str, after: str | None = None
) -> Page[Conversation]:
    return await svc.conversations.get_list(
        tenant_id=token.tenant_id, user_id=user_id, after=after, items_per_page=20, total="none"
    )


# --8<-- [end:conversations]
# --8<-- [start:turns]
class Question(BaseModel):
    question: str


async def answer(question: str) -> str:
    """Call a language model here."""
    return f"You asked: {question}"


@app.post("/conversations/{id}/turns")
async def append(
    svc: Services,
    token: Token,
    id: str,
    body: Question,
    key: Annotated[str | None, Depends(idempotency_key)],
) -> Appended:
    messages = [
        Message(role="user", content=body.question),
        Message(role="assistant", content=await answer(body.question)),
    ]
    turn = Turn(messages=messages, tokens=42, token_id=token.id)
    return await svc.conversations.append_message(
        id, turn, tenant_id=token.tenant_id, idempotency_key=key
    )


# --8<-- [end:turns]
# --8<-- [start:reads]
@app.get("/conversations/{id}/messages")
async def messages(svc: Services, token: Token, id: str, after_seq: int = 0) -> list[StoredMessage]:
    return await svc.conversations.messages(id, tenant_id=token.tenant_id, after=after_seq)


@app.get("/search")
async def search(svc: Services, token: Token, keywords: str) -> Page[Hit]:
    return await svc.conversations.search(keywords, tenant_id=token.tenant_id)


# --8<-- [end:reads]
# --8<-- [start:usage]
@app.get("/usage")
async def usage(
    svc: Services, token: Token, from_date: date, to_date: date, tz: str = "UTC"
) -> list[UsageBucket]:
    return await svc.conversations.stats(
        tenant_id=token.tenant_id, from_date=from_date, to_date=to_date, tz=tz
    )


# --8<-- [end:usage]
