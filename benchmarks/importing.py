"""The import of whole conversations: messages per second and peak memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks import child_process
from benchmarks.append_contenders import stores
from benchmarks.contenders import bare
from benchmarks.measuring import Measured, Turn, agree
from benchmarks.report import Place, Report
from benchmarks.server import connected
from benchmarks.statements import sql

PLACES: Mapping[str, tuple[str, str]] = {
    "COPY by psycopg": ("copy", child_process.COPY_SCHEMA),
    "asyncsvc": ("import_", "asyncsvc"),
    "SQLAlchemy": ("insert", "orm"),
}
"""The call of `child_process` and the schema of each contender."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    conversations: tuple[int, ...]
    rounds: int


SCALES = {
    "small": Scale((20,), 1),
    "middle": Scale((1_000, 4_000), 3),
    "full": Scale((1_000, 10_000), 3),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with stores(dsn, 1) as lent:
        await lent.create()
    await bare.create_tables(dsn, child_process.COPY_SCHEMA)
    peaks = [await _measure(dsn, count, how.rounds, report) for count in how.conversations]
    report.target(
        "peak of memory, the largest import against the smallest, asyncsvc",
        peaks[-1]["asyncsvc"] / peaks[0]["asyncsvc"],
        maximum=1.2,
    )


async def _measure(dsn: str, count: int, rounds: int, report: Report) -> dict[str, float]:
    """Import the same records with each contender; return the peaks of memory."""
    measured = {name: Measured(name) for name in PLACES}
    peaks = dict.fromkeys(PLACES, 0.0)
    messages = count * child_process.MESSAGES
    for number in range(rounds):
        tenant = f"import{count}-{number}"
        for name, (work, _) in PLACES.items():
            with report.working(f"{messages:,} messages, {name}, round {number + 1}"):
                spent = await child_process.measured(work, dsn, tenant, count)
            measured[name].add(Turn([spent.seconds / messages] * messages, spent.seconds))
            peaks[name] = max(peaks[name], spent.peak)
        ways = {name: _Imported(dsn, schema, tenant) for name, (_, schema) in PLACES.items()}
        await agree(f"an import of {messages}", ways)
    title = f"import of {messages:,} messages, in a process that starts for it: messages"
    report.add(title, list(measured.values()), place=Place("import", messages))
    report.add_counts(f"peak MiB of an import of {messages:,} messages", _rounded(peaks))
    return peaks


def _rounded(peaks: Mapping[str, float]) -> dict[str, float]:
    return {name: round(peak, 1) for name, peak in peaks.items()}


@dataclass(frozen=True)
class _Imported:
    """The counts and the digest of a tenant's messages in a schema."""

    dsn: str
    schema: str
    tenant: str

    async def __call__(self) -> tuple[object, ...]:
        async with connected(self.dsn, self.schema) as connection:
            row = await connection.fetchrow(sql("imported"), self.tenant)
        assert row is not None  # noqa: S101
        return tuple(row)
