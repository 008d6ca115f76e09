"""The typer application that every command belongs to."""

from __future__ import annotations

import typer

from asyncsvc.cli.demo import demo

app = typer.Typer(
    name="asyncsvc",
    help="Conversations and API tokens of many tenants, on PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(demo)


@app.callback()
def _root() -> None:
    """Make the commands named ones, also while there is a single one."""
