"""The options that commands share: one meaning, one help text, one environment variable."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

Dsn: TypeAlias = Annotated[
    str | None,
    typer.Option("--dsn", metavar="URL", envvar="ASYNCSVC_DSN", help="The database."),
]
Tenant: TypeAlias = Annotated[
    str, typer.Option("--tenant", metavar="ID", envvar="ASYNCSVC_TENANT", help="The tenant.")
]
Tz: TypeAlias = Annotated[
    str, typer.Option("--tz", metavar="ZONE", help="The time zone of dates, as Europe/Berlin.")
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of tables, for a pipe.")
]
Yes: TypeAlias = Annotated[bool, typer.Option("--yes", help="Do not ask before deleting.")]
