"""An export and a purge process batches of limited size, so the batch limits their memory."""

from __future__ import annotations

from benchmarks import child_process, data
from benchmarks.bench import Bench, Point
from benchmarks.contenders.library import connect

WORKS = ("export", "purge")


async def run(bench: Bench) -> None:
    """Measure the peak memory of an export and a purge, by number of conversations.

    The purge deletes the tenants that the suites share, so this suite runs after the others.
    """
    async with connect(bench.dsn) as svc:
        await svc.migrate()
    sizes = bench.choose((100, 200), (10_000, 100_000), (10_000, 100_000, 1_000_000))
    tenants = [data.of_size(size) for size in sizes]
    for tenant in tenants:
        await data.fill(bench, tenant, "asyncsvc")
    peaks = [await _measure(bench, tenant) for tenant in tenants]
    for work in WORKS:
        title = f"peak memory of {work}, {sizes[-1]:,} conversations against {sizes[0]:,}"
        bench.target(title, peaks[-1][work] / peaks[0][work], at_most=1.2)


async def _measure(bench: Bench, tenant: data.Tenant) -> dict[str, float]:
    """Export a tenant and purge it; return the peak memory of both in MiB."""
    size, spent = tenant.conversations, {}
    for work in WORKS:
        with bench.working(f"{work} of {size:,} conversations"):
            spent[work] = await child_process.measured(work, bench.dsn, tenant.name)
    bench.filled.discard(("asyncsvc", tenant.name))
    peaks = {work: round(each.peak, 1) for work, each in spent.items()}
    what = f"of {size:,} conversations"
    bench.counts(f"peak MiB {what}", peaks, point=Point("memory", size))
    rates = {work: round(size / each.seconds) for work, each in spent.items()}
    bench.counts(f"conversations per second {what}", rates)
    return peaks
