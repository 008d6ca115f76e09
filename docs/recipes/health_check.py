"""Answer the probes of an orchestrator: is the process alive, and is the database ready?"""

import asyncio
import os
from typing import Annotated

import httpx
from fastapi import Depends, FastAPI, Response

import asyncsvc
from asyncsvc import AsyncSvc, MigrationError, Unavailable
from asyncsvc.integrations.fastapi import lifespan, services

DSN = os.environ["ASYNCSVC_DSN"]
app = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect(DSN)))


@app.get("/live")
async def live() -> str:
    return "ok"  # asks nothing of the database: a restart would not repair it


@app.get("/ready")
async def ready(svc: Annotated[AsyncSvc, Depends(services)], response: Response) -> str:
    try:
        await svc.check()
    except (Unavailable, MigrationError) as error:
        response.status_code = 503
        return str(error)
    return "ok"


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        app.dependency_overrides[services] = lambda: svc  # as in a test: no lifespan runs
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            print((await client.get("/live")).status_code, (await client.get("/ready")).status_code)
            # > 200 200
            await svc.close()
            print((await client.get("/live")).status_code, (await client.get("/ready")).status_code)
            # > 200 503


if __name__ == "__main__":
    asyncio.run(main())
