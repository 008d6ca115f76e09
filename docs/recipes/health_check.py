"""Answer the probes of an orchestrator: is the process alive, and is the database ready?"""

import asyncio
import os

import httpx
from fastapi import FastAPI, Request, Response

import asyncsvc
from asyncsvc import MigrationError, Unavailable

DSN = os.environ["ASYNCSVC_DSN"]
app = FastAPI()


@app.get("/live")
async def live() -> str:
    return "ok"  # asks nothing of the database: a restart would not repair it


@app.get("/ready")
async def ready(request: Request, response: Response) -> str:
    svc: asyncsvc.AsyncSvc = request.app.state.svc
    try:
        await svc.check()
    except (Unavailable, MigrationError) as error:
        response.status_code = 503
        return str(error)
    return "ok"


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        app.state.svc = svc
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            print((await client.get("/live")).status_code, (await client.get("/ready")).status_code)
            # > 200 200
            await svc.close()
            print((await client.get("/live")).status_code, (await client.get("/ready")).status_code)
            # > 200 503


if __name__ == "__main__":
    asyncio.run(main())
