"""A progress bar on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn
from rich.text import Text

from asyncsvc.cli.terminal import messages, printable


@dataclass(frozen=True, slots=True)
class Bar:
    """The progress bar of one task."""

    progress: Progress

    def show(self, done: str, completed: float | None = None, total: float | None = None) -> None:
        """Update the text, the position, and the total if it became known later."""
        task = self.progress.task_ids[0]
        self.progress.update(task, done=done, completed=completed, total=total)

    def log(self, text: str) -> None:
        """Print a line above the bar. The line stays when the bar disappears."""
        self.progress.console.print(Text(printable(text), style="yellow"))


@contextmanager
def progress_bar(task: str, total: float | None = None) -> Iterator[Bar]:
    """Show a bar, or a spinner if there is no total, until the block ends.

    The bar appears only on a terminal. Lines of `Bar.log` appear in a pipe too.
    """
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        *([BarColumn(), TaskProgressColumn()] if total else []),
        TextColumn("{task.fields[done]}", markup=False),
        console=messages(),
        transient=True,
        disable=not messages().is_terminal,
    )
    progress.add_task(printable(task), total=total, done="")
    with progress:
        yield Bar(progress)
