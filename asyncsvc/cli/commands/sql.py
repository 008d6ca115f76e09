"""`asyncsvc sql`: the SQL statements and their plans."""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Annotated

from rich.text import Text
from typer import Argument, Option

from asyncsvc import InvalidInput, Plan, SQLStatement, sql_statement, sql_statement_names
from asyncsvc.cli.options import AsJson
from asyncsvc.cli.output import print_json
from asyncsvc.cli.runner import asynchronous, connected
from asyncsvc.cli.terminal import Column, console, print_table, printable_lines, say, table


def _complete(incomplete: str) -> list[tuple[str, str]]:
    """Return the statements that start with this text, each with its purpose, as completions."""
    names = [name for name in sql_statement_names() if name.startswith(incomplete)]
    return [(name, _purpose(name)) for name in names]


Name = Annotated[
    str | None,
    Argument(
        metavar="NAME",
        help="The statement, for example conversation/get_list. Without it, list all statements.",
        autocompletion=_complete,
        show_default=False,
    ),
]
Present = Annotated[
    list[str] | None,
    Option(
        "--with",
        metavar="NAME",
        help="Include this optional parameter, flag or order. Repeat for several.",
    ),
]
Values = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="NAME=VALUE",
        help="Explain with this value of a parameter, as a literal of PostgreSQL: a time as ISO"
        " 8601, an array as {a,b}. Repeat for several.",
    ),
]
OptionalDsn = Annotated[
    str | None,
    Option("--dsn", metavar="URL", envvar="ASYNCSVC_DSN", help="The database, for --explain."),
]
Explain = Annotated[bool, Option("--explain", help="Print PostgreSQL's plan, without executing.")]


@asynchronous
async def sql(
    name: Name = None,
    *,
    dsn: OptionalDsn = None,
    present: Present = None,
    values: Values = None,
    explain: Explain = False,
    as_json: AsJson = False,
) -> None:
    """List the SQL statements, print one as the server receives it, or explain its plan."""
    literals = dict(map(_pair, values or ()))
    names = {*(present or ()), *literals}
    if name is None:
        if names or explain:
            raise InvalidInput("name", "is required with --with, --set and --explain")
        _print_list(as_json=as_json)
    elif explain:
        if dsn is None:
            raise InvalidInput(
                "dsn", "is required with --explain, or ASYNCSVC_DSN in the environment"
            )
        async with connected(dsn) as svc:
            plan = await svc.explain(name, present=sorted(names), values=literals)
        if as_json:
            print_json(plan)
        else:
            _print_plan(plan, literals)
    else:
        statement = sql_statement(name, names)
        if as_json:
            print_json(statement)
        else:
            _print_statement(statement)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput("values", "must be NAME=VALUE")
    return name, value


def _print_list(*, as_json: bool) -> None:
    purposes = {name: _purpose(name) for name in sql_statement_names()}
    if as_json:
        print_json([{"name": name, "purpose": text} for name, text in purposes.items()])
        return
    columns: list[Column[tuple[str, str]]] = [
        Column("statement", itemgetter(0)),
        Column("purpose", itemgetter(1), share=1),
    ]
    grid = table(columns, list(purposes.items()))
    grid.columns[1].no_wrap = False
    grid.columns[1].overflow = "fold"
    console().print(grid)


def _purpose(name: str) -> str:
    """Return the first sentence of a statement's header."""
    return re.split(r"(?<=\.)\s", _unwrapped(sql_statement(name).header))[0]


def _unwrapped(header: str) -> str:
    """Join the lines of each paragraph and label, so that the terminal wraps them."""
    return re.sub(r"(?<!\n)\n(?!\n|[A-Z][a-z ]+: ) *", " ", header)


def _print_statement(statement: SQLStatement) -> None:
    console().print(Text(_unwrapped(statement.header)), end="\n\n")
    _print_code(statement.text)
    console().print()
    for number, parameter in enumerate(statement.parameters, start=1):
        say(f"${number} is {parameter}", "cyan")
    if statement.optional:
        say(f"Names for --with: {', '.join(statement.optional)}", "dim")


def _print_plan(plan: Plan, literals: dict[str, str]) -> None:
    _print_code(plan.text)
    console().print()
    names = list(plan.values)
    columns: list[Column[str]] = [
        Column("", lambda name: f"${names.index(name) + 1}"),
        Column("parameter", lambda name: name),
        Column("value", lambda name: str(plan.values[name]), share=1),
        Column("", lambda name: "" if name in literals else "sample"),
    ]
    if names:
        print_table(columns, names)
    _print_code("\n".join(plan.lines))


def _print_code(text: str) -> None:
    """Print lines without wrapping them, so that they can be copied."""
    console().print(printable_lines(text), soft_wrap=True)
