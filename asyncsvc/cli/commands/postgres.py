"""`asyncsvc postgres`: the embedded server, for when there is none at hand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from asyncsvc import embedded
from asyncsvc.cli.drawing import console
from asyncsvc.cli.options import AsJson
from asyncsvc.cli.printing import print_json, print_pairs
from asyncsvc.cli.progress import messages
from asyncsvc.cli.running import CommandError, Exit, run, this_command
from asyncsvc.embedded import EmbeddedPostgres

postgres = typer.Typer(
    name="postgres",
    help="Start, stop and look at a PostgreSQL of your own, from the extra `embedded`.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", readable=False, help="The directory of its data.")
]


@postgres.command()
def start(*, data: Data, as_json: AsJson = False) -> None:
    """Start the server of a directory, or find it running, and print its DSN on stdout.

    A new or empty directory becomes a new server. It keeps running until it is stopped. To use it:
    `export ASYNCSVC_DSN=$(asyncsvc postgres start --data DIR)`.
    """
    run(_start(data, as_json=as_json))


@postgres.command()
def stop(*, data: Data, as_json: AsJson = False) -> None:
    """Stop the server of a directory. Its data stay there."""
    run(_stop(data, as_json=as_json))


@postgres.command()
def status(*, data: Data, as_json: AsJson = False) -> None:
    """Say whether the server of a directory runs: exit code 0 if it does, 3 if it does not."""
    run(_status(data, as_json=as_json))


async def _start(data: Path, *, as_json: bool) -> None:
    with messages().status("starting PostgreSQL …"):
        server = await embedded.start(data)
    if as_json:
        print_json(_described(server) | {"dsn": server.dsn, "started": server.started})
        return
    print(server.dsn)  # noqa: T201 - alone, so that a shell can take it
    program, where = this_command(), shlex.quote(str(server.data_dir))
    how = "runs" if server.started else "was running already,"
    for line in (
        f"PostgreSQL {server.version} {how} on port {server.port}. With its DSN in ASYNCSVC_DSN:",
        f"    {program} migrate",
        "Stop it:",
        f"    {program} postgres stop --data {where}",
    ):
        messages().print(Text(line))


async def _stop(data: Path, *, as_json: bool) -> None:
    _refuse_missing(data)
    stopped = await embedded.stop(data)
    if as_json:
        print_json({"stopped": stopped})
        return
    where = shlex.quote(str(data))
    console().print(
        Text("Stopped." if stopped else "No server was running."),
        Text(f"The data stay in {where}: remove them with rm -r {where}"),
        soft_wrap=True,
    )


def _refuse_missing(directory: Path) -> None:
    if not directory.is_dir():
        raise CommandError(f"{directory}: there is no such directory")


async def _status(data: Path, *, as_json: bool) -> Exit:
    server = await embedded.status(data)
    if as_json:
        print_json({"running": server is not None} | (_described(server) if server else {}))
    elif server is None:
        console().print("No server runs there.")
    else:
        print_pairs({name.replace("_", " "): str(it) for name, it in _described(server).items()})
    return Exit.ATTENTION if server is None else Exit.DONE


def _described(server: EmbeddedPostgres) -> dict[str, object]:
    """Return what is no secret about a server."""
    return {"version": server.version, "port": server.port, "data_dir": str(server.data_dir)}
