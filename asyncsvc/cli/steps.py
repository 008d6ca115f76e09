"""The lines that a command of several steps prints: what each did, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from asyncsvc.cli.drawing import console

_INDENT = 14


@dataclass(slots=True)
class Step:
    """A step that runs; `did` is what its line will say."""

    did: str = ""

    def advance(self, count: int) -> None:
        """Move the progress bar on, where there is one."""


@dataclass(slots=True)
class _Counted(Step):
    progress: Progress | None = None

    def advance(self, count: int) -> None:
        if self.progress is not None:
            self.progress.advance(self.progress.task_ids[0], count)


@contextmanager
def step(label: str, doing: str, *, total: int | None = None) -> Iterator[Step]:
    """Show that something is being done, with a bar when `total` is given, then what it did.

    What is shown meanwhile is for terminals only, and goes away; a step that fails prints nothing.
    """
    began = time.perf_counter()
    if total is None:
        done = Step()
        with console().status(Text(doing)):
            yield done
    else:
        done = _Counted()
        with _progress(doing, total) as done.progress:
            yield done
    _print(label, done.did, time.perf_counter() - began)


def note(text: str, style: str = "dim") -> None:
    """Print a line that belongs to the step above it."""
    grid = Table.grid()
    grid.add_column(width=_INDENT)
    grid.add_column(overflow="fold")
    grid.add_row("", Text(text, style=style))
    console().print(grid)


def _progress(doing: str, total: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    made = Progress(*columns, console=console(), transient=True, disable=not console().is_terminal)
    made.add_task(doing, total=total)
    return made


def _print(label: str, did: str, seconds: float) -> None:
    grid = Table.grid(expand=True)
    grid.add_column(width=_INDENT)
    grid.add_column(ratio=1, overflow="fold")
    grid.add_column(justify="right", min_width=10, no_wrap=True)
    name = Text.assemble(("✓ ", "green"), (label, "bold"))
    grid.add_row(name, Text(did), Text(f"{seconds * 1_000:,.0f} ms", style="cyan"))
    console().print(grid)
