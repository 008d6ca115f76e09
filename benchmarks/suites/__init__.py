"""Method:

- The contenders of a table take turns in several rounds of a fraction of a second each, in
  changing order, in one process on the server's machine. "Of the first" is the median over the
  rounds of the ratio of rates. It is comparable on a noisy machine; absolute times are not.
- Before a contest each contender runs the operation once. The run fails if their results differ.
- Each task makes up to 6 calls before the measurement, so statements are prepared and data is
  cached. Only "Start" measures cold calls.
- A checkpoint precedes each table. With `full_page_writes` on, the first change of a page after a
  checkpoint writes the whole page. A table shows the number of other checkpoints, if there were
  any.
- Commits are durable: see `fsync` and `synchronous_commit` in the table of settings. On a disk
  with slow syncs the times of all writers are close to each other.
- "As RAGFlow" is a new implementation of RAGFlow's `api_service.py`: peewee in threads, one
  document per conversation. "SQLAlchemy" is its ORM on tables with the same columns and indexes.
  "Held" is a connection that the task keeps. In other rows each call takes a connection from the
  library's pool.

`python -m benchmarks --results FILE...` writes this file from the JSON of the runs below. A suite
of a later run replaces the same suite of an earlier run. The texts are the docstrings of the
suites.
"""  # noqa: D415

from __future__ import annotations

from types import ModuleType

from benchmarks.suites import (
    append,
    citus,
    groups,
    import_,
    list_,
    memory,
    models,
    plain,
    pool,
    pooler,
    ragflow,
    replicas,
    retention,
    row_level_security,
    search,
    sessions,
    sizes,
    start,
    stats,
    telemetry,
    upgrade,
    usage,
    verify,
)

SUITES: dict[str, ModuleType] = {
    "start": start,
    "pool": pool,
    "plain": plain,
    "verify": verify,
    "append": append,
    "usage": usage,
    "ragflow": ragflow,
    "models": models,
    "sessions": sessions,
    "list": list_,
    "stats": stats,
    "groups": groups,
    "import": import_,
    "search": search,
    "sizes": sizes,
    "retention": retention,
    "pooler": pooler,
    "upgrade": upgrade,
    "replicas": replicas,
    "citus": citus,
    "telemetry": telemetry,
    "memory": memory,  # deletes the tenants of the other suites
    "row_level_security": row_level_security,  # turns row-level security on
}
"""The suites by name, in the order of a run."""
