"""Memory: an export and a purge need the same for any number of conversations.

The purge deletes the tenants of all other suites, so this one comes after them.
"""

from __future__ import annotations

from dataclasses import dataclass

import asyncsvc
from benchmarks import child, data
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
    """Measure, and add what was found to the report."""
    how = SCALES[scale]
    async with asyncsvc.connect(dsn) as svc:
        await svc.migrate()
    tenants = [data.of_size(size) for size in how.sizes]
    for tenant in tenants:
        await data.fill(dsn, tenant, data.LIBRARY, report)
    peaks = [await _measure(dsn, tenant, report) for tenant in tenants]
    for work in WORKS:
        most, least = how.sizes[-1], how.sizes[0]
        title = f"peak of memory of {work}, {most:,} conversations against {least:,}"
        report.target(title, peaks[-1][work] / peaks[0][work], most=1.2)


async def _measure(dsn: str, tenant: data.Tenant, report: Report) -> dict[str, float]:
    """Export a tenant and purge it; return the peaks."""
    spent = {}
    for work in WORKS:
        with report.working(f"{work} of {tenant.conversations:,} conversations"):
            spent[work] = await child.measured(work, dsn, tenant.name)
    await data.forget(dsn, tenant)
    peaks = {work: each.peak for work, each in spent.items()}
    what = f"of {tenant.conversations:,} conversations"
    place = Place("memory", tenant.conversations)
    report.note(f"peak MiB {what}", {w: round(peak, 1) for w, peak in peaks.items()}, place=place)
    rates = {work: round(tenant.conversations / each.seconds) for work, each in spent.items()}
    report.note(f"conversations a second {what}", rates)
    return peaks
