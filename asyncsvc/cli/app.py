"""The typer application of all commands."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import typer
from typer import Option

from asyncsvc.cli.commands.conversations import list_conversations, search, show
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
from asyncsvc.cli.runner import CommandError, use_settings

app = typer.Typer(
    name="asyncsvc",
    help="Conversations and API tokens of many tenants, on PostgreSQL.",
    epilog="Exit codes: 0 done; 1 failed, one line on stderr gives the reason; 2 wrong use;"
    " 3 done, and something needs attention; 130 Ctrl-C.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "list": list_conversations,
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


def _print_version(*, requested: bool) -> None:
    if requested:
        typer.echo(f"asyncsvc {metadata.version('asyncsvc')}")
        raise typer.Exit


def _use_settings(*, file: Path | None) -> None:
    try:
        if file is not None:
            use_settings(file)
    except CommandError as error:
        raise typer.BadParameter(str(error)) from None


@app.callback()
def _global_options(
    *,
    _settings: Annotated[
        Path | None,
        Option(
            "--settings",
            readable=False,
            metavar="FILE",
            envvar="ASYNCSVC_SETTINGS",
            callback=_use_settings,
            help="The application's asyncsvc.Settings as JSON: peppers, limits, timeouts.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Process the options before a command."""


for name, command in _COMMANDS.items():
    app.command(name)(command)
for group in (tokens, postgres):
    app.add_typer(group)
