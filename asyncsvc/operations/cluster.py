"""The cluster of Citus: what `check` requires of it, and what the doctor reports.

`check` also answers probes. A node that is down must not make all processes of an application
unready, since the tenants of the other nodes are served. So it raises for the schema alone, and
logs the problems of nodes.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from asyncsvc.errors import MigrationError
from asyncsvc.operations.findings import finding
from asyncsvc.repositories import MigrationRepository, ServerRepository

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.models import Finding
    from asyncsvc.repositories.server import Cluster, Worker
    from asyncsvc.settings import Settings

_log: Final = logging.getLogger(__name__)
_LACKING: Final = "the settings expect Citus, and the database does not have the extension"


async def check(executor: Executor) -> None:
    """Raise MigrationError unless the tables are distributed as the settings say. Read-only.

    Log a warning for each problem of a worker.
    """
    schema, nodes = await _examine(executor)
    for problem in schema:
        if problem.level == "problem":
            raise MigrationError(f"{problem.observed}: {problem.advice}")
    for problem in nodes:
        if problem.level == "problem":
            _log.warning("%s: %s", problem.observed, problem.advice)


async def examine(executor: Executor) -> list[Finding]:
    """Return what the doctor reports of the cluster. No finding without Citus. Read-only."""
    schema, nodes = await _examine(executor)
    return [*schema, *nodes]


async def _examine(executor: Executor) -> tuple[list[Finding], list[Finding]]:
    """Return the findings on the schema and on the nodes."""
    settings = executor.settings
    if not await MigrationRepository(executor).has_citus():
        advice = "connect to a database with Citus, or set Settings.citus to False"
        lacking = finding("citus", _LACKING, (settings.citus, "problem", advice))
        return ([lacking] if settings.citus else []), []
    server = ServerRepository(executor)
    cluster = await server.cluster()
    schema = [version(cluster), distribution(cluster, settings)]
    if schema[0].level == "problem" or not (cluster.distributed or settings.citus):
        return schema, []  # Citus refuses to ask the workers, or other tables need them
    workers = await server.workers(lock_timeout=settings.lock_timeout)
    return schema, [nodes(workers, cluster), lock_timeout(workers, settings), jit(cluster)]


def version(cluster: Cluster) -> Finding:
    """Check whether the database has the version of Citus that the server loaded."""
    return finding(
        "citus",
        f"Citus {cluster.library}, and the database has the extension of {cluster.extension}",
        (
            cluster.extension != cluster.library,
            "problem",
            "update the extension in this database, on each node",
        ),
    )


def distribution(cluster: Cluster, settings: Settings) -> Finding:
    """Check whether the tables are distributed by their tenant, and the settings say so."""
    count, misplaced = len(cluster.distributed), ", ".join(cluster.misplaced)
    return finding(
        "distribution",
        f"not distributed by tenant_id together with the conversations: {misplaced}"
        if misplaced and (count or settings.citus)
        else f"{count} tables are distributed by tenant_id",
        (
            bool(count) and not settings.citus,
            "problem",
            "set Settings.citus, or writes go through all nodes",
        ),
        (
            bool(misplaced) and settings.citus,
            "problem",
            "run `asyncsvc migrate --citus`, if need be after undistribute_table",
        ),
    )


def nodes(workers: Sequence[Worker], cluster: Cluster) -> Finding:
    """Check whether each worker answers and has the coordinator's version of Citus."""
    lost = ", ".join(each.node for each in workers if each.is_active and not each.is_reached)
    disabled = ", ".join(each.node for each in workers if not each.is_active)
    other = ", ".join(
        f"{each.node} Citus {each.library}, extension {each.extension}"
        for each in workers
        if each.is_reached and {each.library, each.extension} != {cluster.library}
    )
    states: list[tuple[str, str, str]] = [
        (lost, "not reached", "start it: until then, calls for its tenants raise Unavailable"),
        (disabled, "disabled", "run citus_activate_node for it"),
        (other, "of another version", "install one version on all nodes, and update the extension"),
    ]
    for names, state, advice in states:
        if names:
            return finding("workers", f"{state}: {names}", (True, "problem", advice))
    return finding(
        "workers",
        f"{len(workers)} workers answer, with Citus {cluster.library}",
        (not workers, "warning", "the coordinator has all rows: add workers with citus_add_node"),
    )


def lock_timeout(workers: Sequence[Worker], settings: Settings) -> Finding:
    """Check whether a wait for a lock on a worker ends as one on the coordinator does."""
    expected = {None, round(settings.lock_timeout * 1_000)}
    differing = [each for each in workers if each.lock_timeout not in expected]
    names = ", ".join(f"{each.node} {each.lock_timeout} ms" for each in differing)
    return finding(
        "worker locks",
        f"lock_timeout differs from Settings.lock_timeout: {names}"
        if differing
        else "lock_timeout is that of the settings on each worker that answers",
        *(
            (True, "warning", f"on the coordinator: {each.set_lock_timeout}")
            for each in differing[:1]
        ),
    )


def jit(cluster: Cluster) -> Finding:
    """Check whether the coordinator compiles its part of a distributed plan at each call."""
    return finding(
        "jit",
        f"JIT is {'on' if cluster.has_jit else 'off'} in sessions on the coordinator",
        (
            cluster.has_jit,
            "warning",
            f"{cluster.turn_jit_off}, also behind PgBouncer: a roll-up takes 0.2 s instead of 1.9",
        ),
    )
