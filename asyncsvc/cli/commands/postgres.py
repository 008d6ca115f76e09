"""`asyncsvc postgres`: the embedded server."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from asyncsvc import embedded
from asyncsvc.cli.options import AsJson
from asyncsvc.cli.output import print_json, print_pairs
from asyncsvc.cli.runner import CommandError, Exit, asynchronous, this_program
from asyncsvc.cli.terminal import messages, remark, say
from asyncsvc.embedded import EmbeddedPostgres

postgres = typer.Typer(
    name="postgres",
    help="Start, stop and inspect a private PostgreSQL from the extra `embedded`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Data = Annotated[Path, Option("--data", metavar="DIR", readable=False, help="The data directory.")]


@postgres.command()
@asynchronous
async def start(*, data_dir: Data, as_json: AsJson = False) -> None:
    """Start the server of a directory, unless it runs already, and print its DSN on stdout.

    In a new or empty directory, a new server is created. It runs until it is stopped. To use it:
    `export ASYNCSVC_DSN=$(asyncsvc postgres start --data DIR)`.
    """
    with messages().status("starting PostgreSQL …"):
        server = await embedded.start(data_dir)
    if as_json:
        print_json(_description(server) | {"dsn": server.dsn, "started": server.started})
        return
    print(server.dsn)  # noqa: T201 - the only line on stdout, so that a shell can take it
    program, directory = this_program(), shlex.quote(str(server.data_dir))
    state = "runs" if server.started else "was running already,"
    remark(f"PostgreSQL {server.version} {state} on port {server.port}. To use it:")
    remark(f"export ASYNCSVC_DSN=$({program} postgres start --data {directory})")
    remark("To stop it:")
    remark(f"{program} postgres stop --data {directory}")


@postgres.command()
@asynchronous
async def stop(*, data_dir: Data, as_json: AsJson = False) -> None:
    """Stop the server of a directory. Its data remain there.

    A directory without a server of `asyncsvc postgres start` is an error.
    """
    if not data_dir.exists():
        raise CommandError(f"{data_dir}: there is no such directory")
    stopped = await embedded.stop(data_dir)
    if as_json:
        print_json({"stopped": stopped})
        return
    state = "Stopped." if stopped else "No server was running."
    say(f"{state} The data remain in {shlex.quote(str(data_dir))}.")


@postgres.command()
@asynchronous
async def status(*, data_dir: Data, as_json: AsJson = False) -> Exit:
    """Print whether the server of a directory runs; the exit code is 0 if it does, 3 if not."""
    server = await embedded.status(data_dir)
    description = {} if server is None else _description(server)
    if as_json:
        print_json({"running": server is not None} | description)
    elif server is None:
        say("No server runs in this directory.")
    else:
        print_pairs({name.replace("_", " "): str(value) for name, value in description.items()})
    return Exit.ATTENTION if server is None else Exit.DONE


def _description(server: EmbeddedPostgres) -> dict[str, object]:
    """Return the facts about a server, without its password."""
    return {"version": server.version, "port": server.port, "data_dir": str(server.data_dir)}
