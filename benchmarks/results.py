"""The results of runs, their JSON, and RESULTS.md.

The introduction of a suite is the docstring of its module. In it, `{TITLE: A / B}` stands for the
median time of A divided by the median time of B in the contest of that title.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ConfigDict

from benchmarks import charts

_RATIO = re.compile(r"\{([^{}:]+): ([^{}/]+) / ([^{}]+)\}")


class Row(BaseModel):
    """One contender of a table."""

    model_config = ConfigDict(frozen=True)

    contender: str
    per_second: float
    ratio: float
    """The rate, divided by the rate of the first contender."""
    p50_ms: float
    p99_ms: float
    calls: int = 0


class Target(BaseModel):
    """A value with its target."""

    model_config = ConfigDict(frozen=True)

    value: float
    bound: str
    met: bool


class Result(BaseModel):
    """A table of contenders, counts, a target, or only a remark."""

    model_config = ConfigDict(frozen=True)

    suite: str
    title: str
    contenders: list[Row] = []
    checkpoints: int = 0
    """The number of checkpoints during the contest."""
    counted: dict[str, int | float] = {}
    target: Target | None = None
    figure: str | None = None
    size: float = 0


class Document(BaseModel):
    """The results of one run."""

    command: str
    settings: dict[str, str]
    results: list[Result] = []

    def of(self, suite: str) -> list[Result]:
        """Return the results of a suite."""
        return [result for result in self.results if result.suite == suite]


def write(sources: Sequence[Path], plots: Path | None, suites: ModuleType, file: Path) -> None:
    """Write the results of runs, and draw the figures into `plots`.

    A suite of a later run replaces the same suite of an earlier run. The texts are the docstrings
    of the package `suites` and of its modules.
    """
    runs = [Document.model_validate_json(source.read_bytes()) for source in sources]
    if any(run.settings != runs[0].settings for run in runs):
        raise SystemExit("the runs have different machines or server settings")
    newest = {result.suite: run for run in runs for result in run.results}
    joined = [result for suite, run in newest.items() for result in run.of(suite)]
    if plots is not None:
        charts.write(joined, plots)
    commands = "\n".join(run.command for run in runs)
    parts = [
        "# Results",
        _text(suites, joined),
        f"<!-- not run: it takes hours -->\n```sh\n{commands}\n```",
    ]
    parts.append(_table(("what", "value"), list(runs[0].settings.items())))
    if targets := [_target_row(each) for each in joined if each.target is not None]:
        parts += ["## Targets", _table(("what", "measured", "target", ""), targets)]
    for suite, run in newest.items():
        own = run.of(suite)
        parts += [f"## {suite.replace('_', ' ').capitalize()}", _text(suites.SUITES[suite], joined)]
        if plots is not None:
            parts += _images(own, plots, file)
        parts += [markdown(each) for each in own if each.contenders]
        parts.append(
            "\n".join(markdown(each) for each in own if not (each.contenders or each.target))
        )
    file.write_text("\n\n".join(filter(None, parts)) + "\n", encoding="utf-8")


def markdown(result: Result) -> str:
    """Return a result as Markdown: a table, or an item of a list."""
    title = result.title
    if result.contenders:
        if result.checkpoints:
            title += f" (checkpoints during the contest: {result.checkpoints})"
        columns = ("contender", "per second", "of the first", "p50 ms", "p99 ms")
        table = _table(columns, [_row(row) for row in result.contenders])
        return f"{title[0].upper()}{title[1:]}:\n\n{table}"
    if result.target is not None:
        _, value, bound, verdict = _target_row(result)
        return f"- {title}: {value}, {bound}: {verdict}"
    counted = ", ".join(f"{value:,} {name}" for name, value in result.counted.items())
    return f"- {title}: {counted}" if counted else f"- {title}"


def _row(row: Row) -> tuple[str, ...]:
    ratio = f"{row.ratio:.2f}" if row.ratio >= 0.095 else f"{row.ratio:.2g}"  # noqa: PLR2004
    times = f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}"
    return (row.contender, f"{row.per_second:,.0f}", ratio, *times)


def _target_row(result: Result) -> tuple[str, ...]:
    target = result.target
    assert target is not None  # noqa: S101
    return result.title, f"{target.value:,g}", target.bound, "met" if target.met else "**missed**"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table. With 3 or more columns, all but the first are right-aligned."""
    align = ["---", *["---:" if len(head) > 2 else "---"] * (len(head) - 1)]  # noqa: PLR2004
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, align, *rows))


def _images(results: Sequence[Result], plots: Path, file: Path) -> list[str]:
    return [
        f"![{charts.KINDS[name].title}]({os.path.relpath(charts.path(name, plots), file.parent)})"
        for name in charts.figures(results)
    ]


def _text(module: ModuleType, results: Sequence[Result]) -> str:
    """Return the docstring of a module, with its ratios."""

    def ratio(match: re.Match[str]) -> str:
        title, first, second = (" ".join(part.split()) for part in match.groups())
        for result in results:
            medians = {row.contender: row.p50_ms for row in result.contenders}
            if result.title == title and first in medians and medians.get(second):
                return f"{medians[first] / medians[second]:,.2f}"
        return "(not measured)"

    return _RATIO.sub(ratio, inspect.getdoc(module) or "")
