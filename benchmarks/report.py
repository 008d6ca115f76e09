"""Collect results; print them as tables and write them as JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Measured


@dataclass(frozen=True)
class Place:
    """The figure that shows a result, and the result's size on the x axis."""

    figure: str
    size: float


@dataclass
class Report:
    """Collects results and prints each one."""

    console: Console
    settings: dict[str, str]
    command: str
    suite: str = ""
    results: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """Show the current step on a terminal."""
        with self.console.status(f"{self.suite}: {what}"):
            yield

    def add(
        self,
        title: str,
        measured: Sequence[Measured],
        *,
        place: Place | None = None,
        checkpoints: int | None = None,
    ) -> None:
        """Add a contest; ratios refer to the first contender."""
        rows = [_row(each, measured[0]) for each in measured]
        result: dict[str, Any] = {"suite": self.suite, "title": title, "contenders": rows}
        result |= _placed(place)
        if checkpoints is not None:
            result["checkpoints"] = checkpoints
        self.results.append(result)
        self.console.print(_table(title, rows))
        if checkpoints:
            self.console.print(f"  checkpoints meanwhile: {checkpoints}")

    def add_counts(
        self, title: str, values: Mapping[str, float], *, place: Place | None = None
    ) -> None:
        """Add counts or sizes."""
        result: dict[str, Any] = {"suite": self.suite, "title": title, "counted": dict(values)}
        self.results.append(result | _placed(place))
        counted = ", ".join(f"{value:,} {name}" for name, value in values.items())
        self.console.print(f"{title}: {counted}", highlight=False)

    def add_remark(self, text: str) -> None:
        """Add a remark, for example why a measurement was left out."""
        self.results.append({"suite": self.suite, "title": text})
        self.console.print(text, highlight=False)

    def target(
        self,
        title: str,
        value: float,
        *,
        maximum: float | None = None,
        minimum: float | None = None,
    ) -> None:
        """Add a value and its target. A missed target is reported and is no error."""
        met = (maximum is None or value <= maximum) and (minimum is None or value >= minimum)
        bound = f"at most {maximum:g}" if maximum is not None else f"at least {minimum:g}"
        target = {"value": round(value, 3), "bound": bound, "met": met}
        self.results.append({"suite": self.suite, "title": title, "target": target})
        verdict = "[green]met[/]" if met else "[red]missed[/]"
        self.console.print(f"  {title}: {value:,.2f}, {bound}: {verdict}", highlight=False)

    def write(self, file: Path) -> None:
        """Write all results as JSON."""
        document = {
            "command": self.command,
            "settings": self.settings,
            "results": self.results,
        }
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _placed(place: Place | None) -> dict[str, Any]:
    return {} if place is None else {"figure": place.figure, "size": place.size}


def _row(each: Measured, floor: Measured) -> dict[str, Any]:
    return {
        "contender": each.name,
        "per_second": round(each.rate, 1),
        "ratio": round(each.ratio(floor), 5),
        "p50_ms": round(each.latency(50), 3),
        "p99_ms": round(each.latency(99), 3),
        "calls": len(each.seconds),
    }


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", min_width=72)
    table.add_column("contender")
    for name in ("a second", "of the first", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            row["contender"],
            f"{row['per_second']:,.0f}",
            significant(row["ratio"]),
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
        )
    return table


def significant(ratio: float) -> str:
    """Return a ratio with at least 2 significant digits."""
    return f"{ratio:.2f}" if ratio >= 0.095 else f"{ratio:.2g}"  # noqa: PLR2004
