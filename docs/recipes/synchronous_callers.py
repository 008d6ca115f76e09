"""Call the services from synchronous code, such as Flask, Django or a script with threads."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import asyncsvc

DSN = os.environ["ASYNCSVC_DSN"]
T = TypeVar("T")


class Background:
    """An event loop in a thread of its own, and a pool that belongs to this loop."""

    def __init__(self, dsn: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.svc = self.run(self._connect(dsn))

    @staticmethod
    async def _connect(dsn: str) -> asyncsvc.AsyncSvc:
        return await asyncsvc.connect(dsn)

    def run(self, call: Coroutine[object, object, T]) -> T:
        """Run a call on the loop, and wait for its result in the calling thread."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def close(self) -> None:
        self.run(self.svc.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def main() -> None:
    background = Background(DSN)  # one for the process, created after a fork
    chats = background.svc.conversations

    def handle(number: int) -> str:
        """Handle a request in a thread, as a synchronous framework does."""
        call = chats.create(tenant_id="acme", dialog_id="support", id=f"chat-{number}")
        return background.run(call).id

    with ThreadPoolExecutor(max_workers=3) as threads:
        print(list(threads.map(handle, range(3))))
        # > ['chat-0', 'chat-1', 'chat-2']
    background.close()


if __name__ == "__main__":
    main()
