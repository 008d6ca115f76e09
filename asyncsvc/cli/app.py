"""The typer application that every command belongs to."""

from __future__ import annotations

import typer

from asyncsvc.cli.commands.demo import demo
from asyncsvc.cli.commands.retention import erase, purge
from asyncsvc.cli.commands.schema import migrate, status
from asyncsvc.cli.commands.transfer import export, import_

app = typer.Typer(
    name="asyncsvc",
    help="Conversations and API tokens of many tenants, on PostgreSQL.",
    epilog="Exit codes: 0 done; 1 could not be done, and one line says why; 2 wrong use;"
    " 3 done, and something needs a look; 130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.command("import")(import_)
for command in (migrate, status, export, purge, erase, demo):
    app.command()(command)
