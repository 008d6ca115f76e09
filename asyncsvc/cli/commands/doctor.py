"""`asyncsvc doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from asyncsvc import Finding
from asyncsvc.cli.options import AsJson, Dsn
from asyncsvc.cli.output import print_json
from asyncsvc.cli.progress import progress_bar
from asyncsvc.cli.runner import Exit, asynchronous, connected
from asyncsvc.cli.terminal import console, printable

_MARKS: Final = {
    "ok": ("✓", "green"),
    "note": ("·", "cyan"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "red"),
}


@asynchronous
async def doctor(*, dsn: Dsn, as_json: AsJson = False) -> Exit:
    """Check the server and the schema, and give advice. It changes nothing.

    The exit code is 3 if there is a warning or a problem.
    """
    async with connected(dsn) as svc:
        with progress_bar("checking"):
            findings = await svc.doctor()
    if as_json:
        print_json(findings)
    else:
        _print_findings(findings)
    is_ok = all(finding.level in {"ok", "note"} for finding in findings)
    return Exit.DONE if is_ok else Exit.ATTENTION


def _print_findings(findings: Sequence[Finding]) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column()
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.level]
        grid.add_row(Text(mark, style=style), finding.check, Text(printable(finding.observed)))
        if finding.advice is not None:
            grid.add_row("", "", Text(f"→ {printable(finding.advice)}", style=style))
    console().print(grid)
