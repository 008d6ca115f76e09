"""The peak memory of an export and a purge, by number of conversations.

The purge deletes the tenants that the suites share, so this suite runs after the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncsvc
from benchmarks import child_process, data
from benchmarks.report import Place, Report

WORKS = ("export", "purge")


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    sizes: tuple[int, ...]


SCALES = {
    "small": Scale((100, 200)),
    "middle": Scale((10_000, 100_000)),
    "full": Scale((10_000, 100_000, 1_000_000)),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the results to the report."""
    how = SCALES[scale]
    async with asyncsvc.connect(dsn) as svc:
        await svc.migrate()
    tenants = [data.of_size(size) for size in how.sizes]
    for tenant in tenants:
        await data.fill(dsn, tenant, data.LIBRARY, report)
    peaks = [await _measure(dsn, tenant, report) for tenant in tenants]
    for work in WORKS:
        smallest, largest = how.sizes[0], how.sizes[-1]
        title = f"peak of memory of {work}, {largest:,} conversations against {smallest:,}"
        report.target(title, peaks[-1][work] / peaks[0][work], maximum=1.2)


async def _measure(dsn: str, tenant: data.Tenant, report: Report) -> dict[str, float]:
    """Export a tenant and purge it; return the peaks of memory in MiB."""
    spent = {}
    for work in WORKS:
        with report.working(f"{work} of {tenant.conversations:,} conversations"):
            spent[work] = await child_process.measured(work, dsn, tenant.name)
    await data.forget(dsn, tenant)
    peaks = {work: each.peak for work, each in spent.items()}
    what = f"of {tenant.conversations:,} conversations"
    place = Place("memory", tenant.conversations)
    report.add_counts(
        f"peak MiB {what}", {w: round(peak, 1) for w, peak in peaks.items()}, place=place
    )
    rates = {work: round(tenant.conversations / each.seconds) for work, each in spent.items()}
    report.add_counts(f"conversations a second {what}", rates)
    return peaks
