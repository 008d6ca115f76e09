"""Cancel a call at its n-th await instead of at a random time.

A coroutine can be cancelled only at an await. Each await has 2 moments for it:

- `waiting`: the call has begun to wait, so the awaited operation is cancelled too.
- `answered`: the awaited operation, for example a commit, is complete, and the call is cancelled
  before it receives the result.

`at_each_await` cancels a call at await 1, 2, 3 and so on, in both moments, until the call ends
before its cancellation. This covers every point at which the call can be cancelled.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Literal

Moment = Literal["waiting", "answered"]
MOMENTS: tuple[Moment, ...] = ("waiting", "answered")


@dataclass
class Outcome:
    """The end of a call."""

    was_reached: bool
    """Whether the call reached the await at which it was to be cancelled."""
    result: object = None
    error: BaseException | None = None


class _Stepper(Awaitable[object]):
    """Runs a coroutine in this task, and intervenes at its n-th await."""

    def __init__(self, call: Coroutine[Any, Any, object], at: int) -> None:
        self._call = call
        self._at = at
        self.awaits = 0

    def intervene(self, awaited: object) -> Generator[Any, Any, object]:
        """Run a step in this task before the task begins to wait."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, Any, object]:
        step: Callable[[], object] = lambda: self._call.send(None)  # noqa: E731 - as below
        while True:
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            self.awaits += 1
            if self.awaits == self._at:
                yield from self.intervene(awaited)
            try:
                yield awaited
            except BaseException as error:
                step = lambda error=error: self._call.throw(error)  # noqa: E731
            else:
                step = lambda: self._call.send(None)  # noqa: E731


class _CancellingStepper(_Stepper):
    def __init__(self, call: Coroutine[Any, Any, object], at: int, moment: Moment) -> None:
        super().__init__(call, at)
        self._moment = moment

    def intervene(self, awaited: object) -> Generator[Any, Any, object]:
        task = asyncio.current_task()
        assert task is not None
        if self._moment == "answered" and isinstance(awaited, asyncio.Future):
            # This callback runs before the one by which the task continues.
            awaited.add_done_callback(lambda _: task.cancel())
        else:
            task.cancel()
        yield from ()


class _InterruptingStepper(_Stepper):
    def __init__(
        self, call: Coroutine[Any, Any, object], at: int, accident: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(call, at)
        self._accident = accident

    def intervene(self, _awaited: object) -> Generator[Any, Any, object]:
        yield from self._accident().__await__()


async def cancelled_at(call: Coroutine[Any, Any, object], at: int, moment: Moment) -> Outcome:
    """Run the call, cancel it at its n-th await (0: never), and return its outcome."""
    return await _run(_CancellingStepper(call, at, moment), at)


async def interrupted_at(
    call: Coroutine[Any, Any, object], at: int, accident: Callable[[], Awaitable[None]]
) -> Outcome:
    """Run the call, await `accident` at its n-th await, and return its outcome."""
    return await _run(_InterruptingStepper(call, at, accident), at)


async def _run(stepper: _Stepper, at: int) -> Outcome:
    async def run() -> object:
        return await stepper

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return Outcome(
        was_reached=0 < at <= stepper.awaits,
        result=None if error else task.result(),
        error=error,
    )


async def at_each_await(
    trial: Callable[[int, Moment], Awaitable[Outcome]],
) -> dict[Moment, int]:
    """Run trials until the call ends before its cancellation; return its number of awaits."""
    awaits: dict[Moment, int] = {}
    for moment in MOMENTS:
        for at in itertools.count(1):
            if not (await trial(at, moment)).was_reached:
                awaits[moment] = at - 1
                break
    return awaits
