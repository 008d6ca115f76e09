"""The writer processes of a crash run, and their acknowledgements."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from asyncsvc.cli.runner import CommandError
from benchmarks.reliability.plan import Ack, Order, Plan

_ROOT: Final = Path(__file__).parents[2]
_MAX_SECONDS: Final = 150.0
"""Seconds until a writer has an acknowledgement, and until it ends."""
_PAUSE: Final = 0.02
_SHOWN_SECONDS: Final = 0.2

Show: TypeAlias = Callable[[], None]
"""Called repeatedly during a wait."""


@dataclass(frozen=True, slots=True)
class _Writer:
    name: str
    process: asyncio.subprocess.Process
    listener: asyncio.Task[None]


@dataclass(slots=True)
class Writers:
    """Starts, reads, kills and stops the writers; `log` is the file of their stderr."""

    plan: Plan
    log: Path
    acks: list[Ack] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    """The application names of all writers of the run."""
    _next: dict[int, int] = field(default_factory=dict)
    _running: dict[int, _Writer] = field(default_factory=dict)

    async def start(self, writer: int) -> None:
        """Start a writer with the first turn that was not acknowledged."""
        order = Order(plan=self.plan, writer=writer, first=self._next.setdefault(writer, 0))
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.reliability.writer", order.model_dump_json()),
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C interrupts only the command, which ends them
            )
        self.names.append(order.name)
        listener = asyncio.create_task(self._listen(process))
        self._running[writer] = _Writer(order.name, process, listener)

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        async for line in process.stdout:
            ack = Ack.model_validate_json(line)
            self.acks.append(ack)
            self._next[ack.writer] = ack.number + 1

    async def wait_for_acks(self, show: Show) -> None:
        """Wait for one more acknowledgement of each writer, which then sends its next turn."""
        before, give_up = dict(self._next), time.monotonic() + _MAX_SECONDS
        while any(self._next[writer] == before[writer] for writer in self._running):
            if time.monotonic() > give_up:
                raise CommandError(f"a writer had no acknowledgement for {_MAX_SECONDS:g} s")
            await self.wait(_PAUSE, show)

    async def wait(self, seconds: float, show: Show) -> None:
        """Wait while the writers run. Raises CommandError if a writer exited."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _SHOWN_SECONDS))
            show()
        if any(each.process.returncode is not None for each in self._running.values()):
            raise self._failure()

    def _failure(self) -> CommandError:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return CommandError(f"a writer failed: {lines[-1] if lines else 'no output'}")

    async def kill(self, writer: int) -> str:
        """Kill a writer with SIGKILL, read its remaining output and return its name."""
        ended = self._running.pop(writer)
        with suppress(ProcessLookupError):
            ended.process.kill()
        await ended.process.wait()
        await ended.listener
        return ended.name

    async def stop(self) -> None:
        """Stop each writer after its current turn. Raises CommandError if one fails."""
        processes = [each.process for each in self._running.values()]
        for process in processes:
            assert process.stdin is not None  # noqa: S101 - it is a pipe
            process.stdin.close()
        try:
            async with asyncio.timeout(_MAX_SECONDS):
                codes = [await process.wait() for process in processes]
        except TimeoutError:
            raise CommandError(f"a writer did not end within {_MAX_SECONDS:g} s") from None
        if any(codes):
            raise self._failure()
        await self.end()

    async def end(self) -> None:
        """Kill all remaining writers."""
        for writer in list(self._running):
            await self.kill(writer)
