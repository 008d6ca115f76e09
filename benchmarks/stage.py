"""Where contenders meet: after a checkpoint, in turns, with what the server did told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring import Competitor, Measured, contest
from benchmarks.report import Place, Report
from benchmarks.server import activity, connected

TASKS = 32


@dataclass(frozen=True)
class Effort:
    """How long each contender works, and how often."""

    rounds: int
    seconds: float
    tasks: int = TASKS
    """How many tasks there are where there are many."""


EFFORTS = {"small": Effort(2, 0.02, 8), "middle": Effort(5, 0.2), "full": Effort(7, 0.25)}


@dataclass(frozen=True)
class Stage:
    """One database, one report, one effort."""

    dsn: str
    report: Report
    effort: Effort

    async def contest(
        self, title: str, contenders: Sequence[Competitor], *, place: Place | None = None
    ) -> list[Measured]:
        """Measure and report; the first contender is the floor of the ratios.

        The checkpoint before it makes the first change of each page write the whole page, as after
        any checkpoint; of those that come by themselves meanwhile the report tells.
        """
        with self.report.working(title):
            async with connected(self.dsn) as connection:
                await connection.execute("CHECKPOINT")
                before = await activity(connection)
                measured = await contest(
                    contenders, rounds=self.effort.rounds, seconds=self.effort.seconds
                )
                after = await activity(connection)
        checkpoints = after.checkpoints - before.checkpoints
        self.report.add(title, measured, place=place, checkpoints=checkpoints)
        return measured


def spelled(count: int) -> str:
    """Return how many tasks there are, in words."""
    return "1 task" if count == 1 else f"{count} tasks"
