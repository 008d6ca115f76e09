"""Stream an answer, and store what was sent even if the client goes away."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
import httpx
import uvicorn
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

import asyncsvc
from asyncsvc import AsyncSvc, Message, Turn
from asyncsvc.integrations.fastapi import add_problem_details, lifespan, services

DSN = os.environ["ASYNCSVC_DSN"]
app = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect(DSN)))
add_problem_details(app)


async def model(question: str) -> AsyncIterator[str]:
    """Stand in for a language model, which never comes to an end."""
    yield f"You asked: {question}"
    while True:
        await asyncio.sleep(0.05)
        yield " ..."


@app.post("/conversations/{id}/turns")
async def ask(
    svc: Annotated[AsyncSvc, Depends(services)], id: str, question: str
) -> StreamingResponse:
    async def append(role: str, content: str, *, round: int, finish_reason: str = "") -> None:
        message = Message(role=role, content=content, payload={"finish_reason": finish_reason})
        turn = Turn(messages=[message], round=round)
        await svc.conversations.append_message(id, turn, tenant_id="acme")

    async def stream() -> AsyncIterator[str]:
        parts: list[str] = []
        finish_reason = "incomplete"
        try:
            async for part in model(question):
                parts.append(part)
                yield part
            finish_reason = "stop"
        finally:
            # A client that goes away cancels this task. The append must not be cancelled with it.
            with anyio.CancelScope(shield=True):
                answer = "".join(parts)
                await append("assistant", answer, round=1, finish_reason=finish_reason)

    # Before the stream starts: a 404 is still possible, and a crash loses no question.
    await append("user", question, round=0)
    return StreamingResponse(stream(), media_type="text/plain")


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with asyncsvc.connect(DSN) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        url = f"http://127.0.0.1:{port}/conversations/{chat.id}/turns"
        async with (
            httpx.AsyncClient(params={"question": "Where is my parcel?"}) as client,
            client.stream("POST", url) as response,
        ):
            await anext(response.aiter_text())  # the first part, then the client goes away
        server.should_exit = True
        await serving  # waits for the open responses
        question, answer = await svc.conversations.messages(chat.id, tenant_id="acme")
        print(question.content)
        # > Where is my parcel?
        print(answer.content[:30], answer.payload)
        # > You asked: Where is my parcel? {'finish_reason': 'incomplete'}


if __name__ == "__main__":
    asyncio.run(main())
