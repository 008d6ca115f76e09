"""A bar for what takes long, on stderr, so that stdout stays free for what a pipe reads."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.text import Text

from asyncsvc.cli.drawing import plain


@functools.cache
def messages() -> Console:
    """Return the console on stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Bar:
    """What is shown of work that goes on."""

    progress: Progress

    def show(self, done: str, completed: float | None = None, total: float | None = None) -> None:
        """Say what is done so far, and move the bar to here; `total` is for who learns it late."""
        task = self.progress.task_ids[0]
        self.progress.update(task, done=done, completed=completed, total=total)

    def say(self, text: str, style: str = "yellow") -> None:
        """Print a line that stays, above the bar."""
        self.progress.console.print(Text(plain(text), style=style))


@contextmanager
def bar(doing: str, total: float | None = None) -> Iterator[Bar]:
    """Show a bar while the block runs, without a total something that moves; then it goes away.

    It is for terminals only; what is said by the way is for pipes too.
    """
    shown = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *([BarColumn(), TaskProgressColumn()] if total else []),
        TextColumn("{task.fields[done]}"),
        console=messages(),
        transient=True,
        disable=not messages().is_terminal,
    )
    shown.add_task(doing, total=total, done="")
    with shown:
        yield Bar(shown)
