"""The typer application that every command belongs to."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import typer

from asyncsvc.cli.commands.conversations import list_, search, show
from asyncsvc.cli.commands.demo import demo
from asyncsvc.cli.commands.doctor import doctor
from asyncsvc.cli.commands.maintain import maintain, zone
from asyncsvc.cli.commands.postgres import postgres
from asyncsvc.cli.commands.ragflow_import import import_ragflow
from asyncsvc.cli.commands.retention import erase, purge
from asyncsvc.cli.commands.schema import migrate, status
from asyncsvc.cli.commands.sql import sql
from asyncsvc.cli.commands.stats import stats
from asyncsvc.cli.commands.tokens import tokens
from asyncsvc.cli.commands.transfer import export, import_
from asyncsvc.cli.running import CommandError, use_settings


def _print_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"asyncsvc {metadata.version('asyncsvc')}")
        raise typer.Exit


app = typer.Typer(
    name="asyncsvc",
    help="Conversations and API tokens of many tenants, on PostgreSQL.",
    epilog="Exit codes: 0 done; 1 could not be done, and one line says why; 2 wrong use;"
    " 3 done, and something needs a look; 130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "list": list_,
    "search": search,
    "show": show,
    "stats": stats,
    "import": import_,
    "import-ragflow": import_ragflow,
    "export": export,
    "purge": purge,
    "erase": erase,
    "maintain": maintain,
    "zone": zone,
    "migrate": migrate,
    "status": status,
    "doctor": doctor,
    "sql": sql,
    "demo": demo,
}


def _use_settings(*, file: Path | None) -> None:
    try:
        if file is not None:
            use_settings(file)
    except CommandError as error:
        raise typer.BadParameter(str(error)) from None


@app.callback()
def _options(
    *,
    _settings: Annotated[
        Path | None,
        typer.Option(
            "--settings",
            readable=False,
            metavar="FILE",
            envvar="ASYNCSVC_SETTINGS",
            callback=_use_settings,
            help="The application's asyncsvc.Settings, as JSON: peppers, limits, time-outs.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version, and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Take what stands before a command."""


for name, command in _COMMANDS.items():
    app.command(name)(command)
for group in (tokens, postgres):
    app.add_typer(group)
