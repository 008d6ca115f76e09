"""Send the new messages of a conversation to browsers by server-sent events."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Header
from fastapi.responses import StreamingResponse

import asyncsvc
from asyncsvc import AsyncSvc, Message, Turn
from asyncsvc.integrations.fastapi import add_problem_details, lifespan, services

DSN = os.environ["ASYNCSVC_DSN"]
HEARTBEAT = 15.0
"""Seconds of silence after which a comment is sent, since proxies close silent connections."""
app = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect(DSN)))
add_problem_details(app)


@app.get("/conversations/{id}/events")
async def events(
    svc: Annotated[AsyncSvc, Depends(services)],
    id: str,
    last_event_id: Annotated[int, Header()] = 0,
) -> StreamingResponse:
    """Stream the messages after `Last-Event-ID`, which a browser sends when it reconnects."""
    chats = svc.conversations

    async def stream() -> AsyncIterator[str]:
        sent = last_event_id
        async with chats.watch(tenant_id="acme") as watch:  # before the first read: no gap
            while True:
                while page := await chats.messages(id, tenant_id="acme", after=sent):
                    for message in page:
                        data = message.model_dump_json(include={"role", "content"})
                        yield f"id: {message.seq}\ndata: {data}\n\n"
                    sent = page[-1].seq
                try:
                    async with asyncio.timeout(HEARTBEAT):
                        while (await anext(watch)).conversation_id != id:
                            pass
                except TimeoutError:
                    yield ": no news\n\n"

    # Before the stream starts, so that a 404 is still possible.
    await chats.get_by_id(id, tenant_id="acme", include_dsl=False)
    return StreamingResponse(stream(), media_type="text/event-stream")


async def main() -> None:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with asyncsvc.connect(DSN) as other_process, httpx.AsyncClient(timeout=60) as browser:
        chat = await other_process.conversations.create(tenant_id="acme", dialog_id="support")
        url = f"http://127.0.0.1:{port}/conversations/{chat.id}/events"

        async def append(content: str) -> None:
            turn = Turn(messages=[Message(role="user", content=content)])
            await other_process.conversations.append_message(chat.id, turn, tenant_id="acme")

        await append("Where is my parcel?")
        async with browser.stream("GET", url) as response:
            received = (line async for line in response.aiter_lines() if line.startswith("data: "))
            print(await anext(received))
            # > data: {"role":"user","content":"Where is my parcel?"}
            await append("It was due on Monday.")
            print(await anext(received))
            # > data: {"role":"user","content":"It was due on Monday."}
        await append("Are you there?")  # while the browser is away
        async with browser.stream("GET", url, headers={"Last-Event-ID": "2"}) as response:
            received = (line async for line in response.aiter_lines() if line.startswith("data: "))
            print(await anext(received))
            # > data: {"role":"user","content":"Are you there?"}
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())
