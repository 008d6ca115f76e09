"""Work that finishes although its task is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def finish_despite_cancellation(
    work: Awaitable[T], *, on_cancel: Callable[[], object] | None = None
) -> T:
    """Await the work to completion, then re-raise a pending cancellation.

    Args:
        work: A coroutine or a future. Cancelling the current task does not cancel it.
        on_cancel: Called at each cancellation, for example to make the work end sooner.

    Returns:
        The result of the work.

    Raises:
        CancelledError: The task was cancelled. An error of the work is its cause.
    """
    future = asyncio.ensure_future(work)
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError as error:
            cancellation = error
            if on_cancel is not None:
                on_cancel()
    if cancellation is not None:
        raise cancellation from future.exception()
    return future.result()
