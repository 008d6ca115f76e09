"""Cancels a call at one of its awaits: not at a random time, but exactly at the n-th.

A coroutine runs from one suspension to the next, and can be cancelled nowhere else. At each there
are two moments that differ:

- `waiting`: the call has just begun to wait, so what it waits for is cancelled too;
- `answered`: what it waited for is there, say the answer to a commit, and the caller is cancelled
  before it is told. So whatever was asked for did happen.

Cancelled at 1, 2, 3 and so on until it ends first, in both moments, a call has been cancelled
wherever it can be.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Literal

Moment = Literal["waiting", "answered"]
MOMENTS: tuple[Moment, ...] = ("waiting", "answered")


@dataclass
class Strike:
    """What became of a call that was to be cancelled."""

    was_struck: bool
    result: object = None
    error: BaseException | None = None


class _Striking(Awaitable[object]):
    """Runs a coroutine in this task, and has something happen at its n-th suspension."""

    def __init__(self, call: Coroutine[Any, Any, object], at: int) -> None:
        self._call = call
        self._at = at
        self.awaits = 0

    def happen(self, awaited: object) -> Generator[Any, Any, object]:
        """Do it, as part of this task, before it waits for what it was about to wait for."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, object]:
        step: Callable[[], object] = lambda: self._call.send(None)  # noqa: E731 - as the others
        while True:
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            self.awaits += 1
            if self.awaits == self._at:
                yield from self.happen(awaited)
            try:
                yield awaited
            except BaseException as error:
                step = lambda error=error: self._call.throw(error)  # noqa: E731
            else:
                step = lambda: self._call.send(None)  # noqa: E731


class _Cancelling(_Striking):
    def __init__(self, call: Coroutine[Any, Any, object], at: int, moment: Moment) -> None:
        super().__init__(call, at)
        self._moment = moment

    def happen(self, awaited: object) -> Generator[Any, Any, object]:
        task = asyncio.current_task()
        assert task is not None
        if self._moment == "answered" and isinstance(awaited, asyncio.Future):
            # Called before the task itself is, which only then begins to listen to it.
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()
        yield from ()


class _Interrupting(_Striking):
    def __init__(
        self, call: Coroutine[Any, Any, object], at: int, accident: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(call, at)
        self._accident = accident

    def happen(self, _awaited: object) -> Generator[Any, Any, object]:
        yield from self._accident().__await__()


async def struck(call: Coroutine[Any, Any, object], at: int, moment: Moment) -> Strike:
    """Run the call, cancel it at its n-th await, and say what came of it."""
    return await _run(_Cancelling(call, at, moment), at)


async def interrupted(
    call: Coroutine[Any, Any, object], at: int, accident: Callable[[], Awaitable[None]]
) -> Strike:
    """Run the call, have the accident happen at its n-th await, and say what came of it."""
    return await _run(_Interrupting(call, at, accident), at)


async def _run(striking: _Striking, at: int) -> Strike:
    async def run() -> object:
        return await striking

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return Strike(
        was_struck=0 < at <= striking.awaits,
        result=None if error else task.result(),
        error=error,
    )


async def struck_everywhere(
    trial: Callable[[int, Moment], Awaitable[Strike]],
) -> dict[Moment, int]:
    """Make trials until the call ends before it is cancelled; return how many awaits it has."""
    awaits: dict[Moment, int] = {}
    for moment in MOMENTS:
        for at in itertools.count(1):
            if not (await trial(at, moment)).was_struck:
                awaits[moment] = at - 1
                break
    return awaits
