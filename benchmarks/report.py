"""What was measured, as tables for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.measuring import Measured


@dataclass
class Report:
    """Collects results and prints each as it comes."""

    console: Console
    settings: dict[str, str]
    results: list[dict[str, Any]] = field(default_factory=list)

    def add(self, title: str, measured: Sequence[Measured]) -> None:
        """Add a contest; the first contender is the floor that the ratios are of."""
        table = Table(title=title, title_justify="left", min_width=72)
        table.add_column("contender")
        for name in ("a second", "of the first", "p50 ms", "p99 ms"):
            table.add_column(name, justify="right")
        rows = []
        for each in measured:
            rate, ratio = each.rate, each.ratio(measured[0])
            p50, p99 = each.latency(50), each.latency(99)
            table.add_row(each.name, f"{rate:,.0f}", f"{ratio:.2f}", f"{p50:.2f}", f"{p99:.2f}")
            rows.append(
                {
                    "contender": each.name,
                    "per_second": round(rate, 1),
                    "ratio": round(ratio, 3),
                    "p50_ms": round(p50, 3),
                    "p99_ms": round(p99, 3),
                }
            )
        self.results.append({"title": title, "contenders": rows})
        self.console.print(table)

    def note(self, title: str, values: dict[str, float]) -> None:
        """Add what was counted, not timed."""
        self.results.append({"title": title, "counted": values})
        counted = ", ".join(f"{value:,} {name}" for name, value in values.items())
        self.console.print(f"{title}: {counted}")

    def write(self, file: Path) -> None:
        """Write all of it as JSON."""
        document = {"settings": self.settings, "results": self.results}
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
