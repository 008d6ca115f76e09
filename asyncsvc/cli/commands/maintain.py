"""`asyncsvc maintain`."""

from __future__ import annotations

from asyncsvc.cli.drawing import console
from asyncsvc.cli.options import AsJson, Dsn
from asyncsvc.cli.printing import many, print_json
from asyncsvc.cli.progress import bar
from asyncsvc.cli.running import connected, run
from asyncsvc.models import MaintenanceReport


def maintain(*, dsn: Dsn = None, as_json: AsJson = False) -> None:
    """Do what has to be done now and then: forget idempotency keys that are over a week old.

    Run it once an hour or so, from anywhere; twice at once does no harm. The week is
    `key_lifetime` in the settings.
    """
    run(_maintain(dsn, as_json=as_json))


async def _maintain(dsn: str | None, *, as_json: bool) -> None:
    async with connected(dsn, max_size=1) as svc:
        with bar("forgetting keys") as shown:

            def show(report: MaintenanceReport) -> None:
                shown.show(many(report.append_keys, "key"))

            report = await svc.maintain(on_batch=show)
    if as_json:
        print_json(report)
    else:
        console().print(f"Forgot {many(report.append_keys, 'idempotency key')}.")
