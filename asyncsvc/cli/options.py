"""The options that commands share: one meaning, one help text, one environment variable."""

from __future__ import annotations

import getpass
from typing import Annotated, TypeAlias

import typer


def _whoever_runs_this() -> str | None:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        return None


Dsn: TypeAlias = Annotated[
    str | None,
    typer.Option("--dsn", metavar="URL", envvar="ASYNCSVC_DSN", help="The database."),
]
Tenant: TypeAlias = Annotated[
    str, typer.Option("--tenant", metavar="ID", envvar="ASYNCSVC_TENANT", help="The tenant.")
]
TenantOfLines: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--tenant",
        metavar="ID",
        envvar="ASYNCSVC_TENANT",
        help="The tenant, where a line names none; lines of another are rejected.",
    ),
]
Tz: TypeAlias = Annotated[
    str, typer.Option("--tz", metavar="ZONE", help="The time zone of dates, as Europe/Berlin.")
]
From: TypeAlias = Annotated[
    str | None,
    typer.Option("--from", metavar="DATE", help="From this day or instant on, as 2026-01-31."),
]
To: TypeAlias = Annotated[
    str | None,
    typer.Option("--to", metavar="DATE", help="To this day or instant, which is included."),
]
After: TypeAlias = Annotated[
    str | None,
    typer.Option("--after", metavar="CURSOR", help="The page behind this cursor of a page."),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of tables, for a pipe.")
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")]
Actor: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--actor",
        metavar="NAME",
        envvar="ASYNCSVC_ACTOR",
        help="Who does it, for the audit.",
        default_factory=_whoever_runs_this,
        show_default="your user name",
    ),
]
