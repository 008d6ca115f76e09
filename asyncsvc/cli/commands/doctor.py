"""`asyncsvc doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table
from rich.text import Text

from asyncsvc.cli.drawing import console, plain
from asyncsvc.cli.options import AsJson, Dsn
from asyncsvc.cli.printing import print_json
from asyncsvc.cli.progress import bar
from asyncsvc.cli.running import Exit, connected, run
from asyncsvc.models import Finding

_MARKS: Final = {
    "ok": ("✓", "green"),
    "note": ("·", "cyan"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "red"),
}
_NEED_A_LOOK: Final = {"warning", "problem"}


def doctor(*, dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Look at the server and the schema, and say what to do. It changes nothing.

    The exit code is 3 when there is a warning or a problem.
    """
    run(_doctor(dsn, as_json=as_json))


async def _doctor(dsn: str | None, *, as_json: bool) -> Exit:
    async with connected(dsn, max_size=1) as svc:
        with bar("examining"):
            findings = await svc.doctor()
    if as_json:
        print_json(findings)
    else:
        _print_findings(findings)
    needs_a_look = any(finding.level in _NEED_A_LOOK for finding in findings)
    return Exit.ATTENTION if needs_a_look else Exit.DONE


def _print_findings(findings: Sequence[Finding]) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column()
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for finding in findings:
        mark, style = _MARKS[finding.level]
        grid.add_row(Text(mark, style=style), finding.check, Text(plain(finding.observed)))
        if finding.advice is not None:
            grid.add_row("", "", Text(f"→ {plain(finding.advice)}", style=style))
    console().print(grid)
