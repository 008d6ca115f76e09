"""`asyncsvc sql`: the statements, what they are for, and what the server would do with them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.text import Text

from asyncsvc.cli.drawing import Column, as_written, console, table
from asyncsvc.cli.options import AsJson, Dsn
from asyncsvc.cli.printing import print_json
from asyncsvc.cli.running import connected, run
from asyncsvc.database import sql_files
from asyncsvc.models import Argument, Plan
from asyncsvc.operations.query_plans import names_of, statement_of, variant


def _complete(incomplete: str) -> list[tuple[str, str]]:
    """Return the names that the shell may go on with, each with what it is for."""
    return [(name, _about(name)) for name in sql_files.names() if name.startswith(incomplete)]


def sql(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="The statement, as conversation/get_list; without it, all are listed.",
            autocompletion=_complete,
            show_default=False,
        ),
    ] = None,
    *,
    dsn: Dsn = None,
    present: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="NAME",
            help="Show it with this optional parameter, flag or order. Give it once for each.",
        ),
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Give a parameter a value, for --explain. Lists are JSON, times ISO 8601.",
        ),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Print PostgreSQL's plan for these values. The statement is not executed.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the SQL statements, show one as the server gets it, or have its plan explained."""
    values = dict(map(_pair, given or ()))
    names = {*(present or ()), *values}
    if name is None and (names or explain):
        raise typer.BadParameter("--with, --set and --explain need it", param_hint="NAME")
    if name is None:
        run(_list(as_json=as_json))
    elif explain:
        run(_explain(dsn, name, names, values, as_json=as_json))
    else:
        run(_show(name, names, as_json=as_json))


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter("must be NAME=VALUE", param_hint="--set")
    return name, value


async def _list(*, as_json: bool) -> None:
    about = {name: _about(name) for name in sql_files.names()}
    if as_json:
        print_json([{"name": name, "about": text} for name, text in about.items()])
        return
    made = table([Column("statement"), Column("what it is for", share=1)], about.items())
    made.columns[1].no_wrap = False  # a sentence is worth a second line
    made.columns[1].overflow = "fold"
    console().print(made)


def _about(name: str) -> str:
    """Return the first sentence of a statement's header."""
    return re.split(r"(?<=\.)\s", _paragraphs(sql_files.load(name).header)[0])[0]


def _paragraphs(header: str) -> list[str]:
    """Return the paragraphs of a header, each on one line, so that any width can break it."""
    return [" ".join(paragraph.split()) for paragraph in header.split("\n\n")]


async def _show(name: str, present: set[str], *, as_json: bool) -> None:
    query, statement = variant(name, present), statement_of(name)
    optional = sorted(statement.optional | statement.flags)
    if as_json:
        print_json(
            {
                "name": name,
                "header": statement.header,
                "text": query.text,
                "parameters": names_of(query),
                "optional": optional,
            }
        )
        return
    for paragraph in _paragraphs(statement.header):
        console().print(Text(paragraph), end="\n\n")
    _print_code(query.text)
    console().print()
    for number, parameter in enumerate(names_of(query), start=1):
        console().print(Text(f"${number} is {parameter}", style="cyan"))
    if optional:
        console().print(Text(f"--with may be: {', '.join(optional)}", style="dim"))


async def _explain(
    dsn: str | None, name: str, present: set[str], values: Mapping[str, str], *, as_json: bool
) -> None:
    async with connected(dsn, max_size=1) as svc:
        plan = await svc.explain(name, present=present, values=values)
    if as_json:
        print_json(_jsonable(plan))
        return
    _print_code(plan.text)
    console().print()
    _print_arguments(plan.arguments)
    _print_code("\n".join(plan.lines))


def _print_arguments(arguments: tuple[Argument, ...]) -> None:
    rows = [
        (f"${number}", each.name, each.type, str(each.value), "" if each.is_given else "made up")
        for number, each in enumerate(arguments, start=1)
    ]
    if rows:
        columns = ("", "parameter", "type")
        shown = [*map(Column, columns), Column("value", share=1), Column("")]
        console().print(table(shown, rows))


def _print_code(text: str) -> None:
    """Print lines that somebody may copy, which are not wrapped."""
    console().print(as_written(text), soft_wrap=True)


def _jsonable(plan: Plan) -> dict[str, object]:
    fields = plan.model_dump()
    fields["arguments"] = [
        each.model_dump() | {"value": str(each.value)} for each in plan.arguments
    ]
    return fields
