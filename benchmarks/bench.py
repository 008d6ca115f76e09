"""One run of suites: its database, its scale, and the results that it collects and prints."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

from rich.console import Console
from rich.markdown import Markdown

from benchmarks import measuring, results
from benchmarks.measuring import Contender, Measured, Tasks, Work
from benchmarks.results import Document, Result, Row, Target
from benchmarks.server import activity, connected

Scale: TypeAlias = Literal["small", "middle", "full"]
T = TypeVar("T")
Contenders: TypeAlias = Mapping[str, Work | Sequence[Work] | Contender]
"""Contenders by name: an operation that all tasks repeat, or one per task, or any contender."""


@dataclass(frozen=True)
class Point:
    """The figure that shows a result, and the result's size on the x axis."""

    figure: str
    size: float


@dataclass
class Bench:
    """The context of a suite: the database that it measures, and the report that it adds to."""

    dsn: str
    scale: Scale
    document: Document
    console: Console = field(default_factory=Console)
    suite: str = ""
    coordinator: str | None = None
    """The DSN of the coordinator of a cluster of Citus."""
    filled: set[tuple[str, str]] = field(default_factory=set)
    """The schemas and tenants that `data.fill` has stored."""

    def choose(self, small: T, middle: T, full: T) -> T:
        """Return the value of this scale."""
        return {"small": small, "middle": middle, "full": full}[self.scale]

    @property
    def tasks(self) -> int:
        """The number of concurrent tasks."""
        return self.choose(4, 32, 32)

    async def contest(
        self,
        title: str,
        contenders: Contenders,
        *,
        tasks: int | None = None,
        answer: Callable[[Any], object] | None = None,
        point: Point | None = None,
        rounds: int | None = None,
        seconds: float | None = None,
    ) -> dict[str, Measured]:
        """Measure and report the contenders; ratios refer to the first one.

        After the checkpoint the first change of each page writes the whole page to the WAL. The
        report contains the number of checkpoints during the contest.

        Args:
            title: The measured operation. The number of tasks is added to it.
            contenders: The contenders by name.
            tasks: The number of tasks that repeat each operation; None for one.
            answer: Returns the part of a result that must be equal for all contenders. The parts
                are compared before the contest.
            point: The place in a figure.
            rounds: None for the default of this scale.
            seconds: The time of a contender in each round; 0 for one call.
        """
        runnable = {name: _contender(each, tasks or 1) for name, each in contenders.items()}
        if tasks is not None:
            title += f", {task_count(tasks)}"
        if answer is not None:
            tried = {name: c.works[0] for name, c in runnable.items() if isinstance(c, Tasks)}
            await measuring.agree(title, tried, answer)
        with self.working(title):
            async with connected(self.dsn) as connection:
                await connection.execute("CHECKPOINT")
                before = await activity(connection)
                measured = await measuring.contest(
                    runnable,
                    rounds=self.choose(1, 5, 9) if rounds is None else rounds,
                    seconds=self.choose(0.005, 0.2, 0.3) if seconds is None else seconds,
                )
                checkpoints = (await activity(connection)).checkpoints - before.checkpoints
        self.table(title, measured, point=point, checkpoints=checkpoints)
        return measured

    def table(
        self,
        title: str,
        measured: Mapping[str, Measured],
        *,
        point: Point | None = None,
        checkpoints: int = 0,
    ) -> None:
        """Report the measurements of contenders."""
        floor = next(iter(measured.values()))
        rows = [
            Row(
                contender=name,
                per_second=round(each.rate, 1),
                ratio=round(each.ratio(floor), 5),
                p50_ms=round(each.latency(50), 3),
                p99_ms=round(each.latency(99), 3),
                calls=len(each.seconds),
            )
            for name, each in measured.items()
        ]
        self._add(title, point, contenders=rows, checkpoints=checkpoints)

    def counts(
        self, title: str, values: Mapping[str, float], *, point: Point | None = None
    ) -> None:
        """Report counts or sizes."""
        self._add(title, point, counted=dict(values))

    def remark(self, text: str) -> None:
        """Report a remark, for example the reason for which a measurement was skipped."""
        self._add(text)

    def target(
        self,
        title: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """Report a value and its target. A missed target is not an error."""
        met = (at_most is None or value <= at_most) and (at_least is None or value >= at_least)
        bound = f"at most {at_most:g}" if at_most is not None else f"at least {at_least:g}"
        self._add(title, target=Target(value=round(value, 3), bound=bound, met=met))

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show the current step on a terminal."""
        with self.console.status(f"{self.suite}: {what}"):
            yield

    def _add(self, title: str, point: Point | None = None, **values: Any) -> None:  # noqa: ANN401
        place = {} if point is None else {"figure": point.figure, "size": point.size}
        result = Result(suite=self.suite, title=title, **place, **values)
        self.document.results.append(result)
        self.console.print(Markdown(results.markdown(result)), highlight=False)


def task_count(tasks: int) -> str:
    """Return `1 task` or `n tasks`."""
    return "1 task" if tasks == 1 else f"{tasks} tasks"


def _contender(contender: Work | Sequence[Work] | Contender, tasks: int) -> Contender:
    if callable(contender):
        return Tasks([contender] * tasks)
    return Tasks(contender) if isinstance(contender, Sequence) else contender
