"""The typer application of all commands."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Final

import typer
from typer import Option

from asyncsvc.cli.commands.budgets import budgets
from asyncsvc.cli.commands.conversations import list_conversations, search, show
from asyncsvc.cli.commands.demo import demo
from asyncsvc.cli.commands.doctor import doctor
from asyncsvc.cli.commands.maintain import declare_zone, maintain
from asyncsvc.cli.commands.postgres import postgres
from asyncsvc.cli.commands.ragflow_import import import_ragflow
from asyncsvc.cli.commands.retention import delete_tenant, erase_user, purge
from asyncsvc.cli.commands.schema import migrate, status
from asyncsvc.cli.commands.sql import sql
from asyncsvc.cli.commands.stats import stats
from asyncsvc.cli.commands.tokens import tokens
from asyncsvc.cli.commands.transfer import export, import_
from asyncsvc.cli.options import SettingsFile
from asyncsvc.cli.runner import run_app

_EXIT_CODES: Final = """
Exit codes:

- 0: The command is done.
- 1: The command failed. The line on stderr gives the reason.
- 2: The command line is wrong. The line on stderr names the option or the argument.
- 3: The command is done, and its output reports something that needs attention: rejected lines,
  a failure of maintenance, a warning of the doctor, pending migrations, an invalid token, a spent
  budget, a server that does not run.
- 128 + n: Signal n ended the command; 130 is Ctrl-C.
"""

app = typer.Typer(
    name="asyncsvc",
    help="Conversations and API tokens of many tenants, on PostgreSQL.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
_COMMANDS: Final[dict[str, Callable[..., int]]] = {
    "list": list_conversations,
    "search": search,
    "show": show,
    "stats": stats,
    "import": import_,
    "import-ragflow": import_ragflow,
    "export": export,
    "purge": purge,
    "erase-user": erase_user,
    "delete-tenant": delete_tenant,
    "maintain": maintain,
    "declare-zone": declare_zone,
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


@app.callback()
def _global_options(
    *,
    context: typer.Context,
    settings: SettingsFile = None,
    _version: Annotated[
        bool,
        Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Store the settings for the command that follows."""
    context.obj = settings


for name, command in _COMMANDS.items():
    app.command(name)(command)
for group in (tokens, budgets, postgres):
    app.add_typer(group)


def run() -> int:
    """Run the command line and return its exit code."""
    return run_app(app)
