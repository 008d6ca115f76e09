"""Run contenders in turns after a checkpoint, and report the server's checkpoints meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measuring import Competitor, Measured, contest
from benchmarks.report import Place, Report
from benchmarks.server import activity, connected

TASKS = 32


@dataclass(frozen=True)
class Effort:
    """The number of rounds, and the seconds of each contender in a round."""

    rounds: int
    seconds: float
    tasks: int = TASKS
    """The number of tasks of a concurrent contest."""


EFFORTS = {"small": Effort(2, 0.02, 8), "middle": Effort(5, 0.2), "full": Effort(7, 0.25)}


@dataclass(frozen=True)
class ContestRunner:
    """Runs contests in one database and adds them to one report."""

    dsn: str
    report: Report
    effort: Effort

    async def contest(
        self, title: str, contenders: Sequence[Competitor], *, place: Place | None = None
    ) -> list[Measured]:
        """Measure and report; ratios refer to the first contender.

        After the checkpoint the first change of each page writes the whole page to the WAL. The
        report contains the number of checkpoints during the contest.
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
    """Return `1 task` or `n tasks`."""
    return "1 task" if count == 1 else f"{count} tasks"
