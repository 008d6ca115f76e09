"""Statements of `sql/` as the server receives them, and their plans."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from asyncsvc.database import sql_files
from asyncsvc.database.sql_files import Query
from asyncsvc.errors import DatabaseError, InvalidInput
from asyncsvc.models import Plan, SQLStatement

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.database.sql_files import Statement

_HAS_PLAN: Final = re.compile(r"/\*.*?\*/\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")
_VALUE_ERRORS: Final = ("22", "42804")
"""Beginnings of SQLSTATEs for values that do not fit their type, of the server or the driver."""
_SAMPLES: Final = {"date": "2000-01-01", "timestamptz": "2000-01-01"}
"""Sample values by type; "1" is a value of every other type in use, and also JSON."""
_SAMPLE_WORDS: Final = {"interval": "day", "tz": "UTC"}
"""Sample values of text parameters that accept only certain words."""


def sql_statement_names() -> list[str]:
    """Return the names of all statements, for example "conversation/get_list", sorted."""
    return list(sql_files.names())


def sql_statement(name: str, present: Collection[str] = ()) -> SQLStatement:
    """Return a statement in the variant in which these parameters and flags are present.

    Args:
        name: The statement, for example "conversation/get_list".
        present: Optional parameters and flags, and at most one order; without an order, the first
            one of the file.

    Raises:
        InvalidInput: A name does not exist, or there are several orders.
    """
    statement = _load(name)
    flags, parameters = _variant(statement, present)
    query = statement.bind(flags, parameters)
    return SQLStatement(
        name=name,
        header=statement.header,
        text=query.text,
        parameters=tuple(map(str, query.arguments)),
        optional=tuple(sorted(statement.optional | statement.flags)),
    )


async def explain(
    executor: Executor, name: str, present: Collection[str], values: Mapping[str, str | None]
) -> Plan:
    """Return the plan of a statement; see `AsyncSvc.explain`."""
    statement = _load(name)
    _check_names("values", values, statement.required | statement.optional)
    flags, parameters = _variant(statement, {*present, *values})
    query = statement.bind(flags, parameters)
    if not _HAS_PLAN.match(query.text):
        raise InvalidInput("name", "PostgreSQL has no plan for DO and DDL")
    types = dict(zip(map(str, query.arguments), await executor.parameter_types(query), strict=True))
    texts = {
        parameter: values[parameter] if parameter in values else _sample(parameter, type_name)
        for parameter, type_name in types.items()
    }
    arguments = await _converted(executor, name, types, texts)
    lines = await executor.explain(statement.bind(flags, arguments))
    return Plan(name=name, text=query.text, values=texts, lines=tuple(lines))


async def _converted(
    executor: Executor, name: str, types: Mapping[str, str], texts: Mapping[str, str | None]
) -> dict[str, object]:
    """Let the server convert literals to the types of their parameters."""
    if not types:
        return {}
    casts = ", ".join(
        f'${number}::text::{type_name} AS "{parameter}"'
        for number, (parameter, type_name) in enumerate(types.items(), start=1)
    )
    query = Query(f"{name} (values)", f"SELECT {casts}", tuple(texts.values()))
    try:
        (row,) = await executor.fetch(query)
    except DatabaseError as error:
        if not error.sqlstate.startswith(_VALUE_ERRORS):
            raise
        raise InvalidInput("values", str(error)) from None
    return dict(row.items())


def _sample(parameter: str, type_name: str) -> str:
    if type_name == "text" and parameter in _SAMPLE_WORDS:
        return _SAMPLE_WORDS[parameter]
    element_type, _, is_array = type_name.partition("[")
    value = _SAMPLES.get(element_type, "1")
    return f"{{{value}}}" if is_array else value


def _load(name: str) -> Statement:
    if not isinstance(name, str):
        raise InvalidInput("name", "must be text")
    names = sql_files.names()
    if name not in names:
        raise InvalidInput("name", f"there is no such statement{_suggestion(name, names)}")
    return sql_files.load(name)


def _variant(
    statement: Statement, present: Collection[str]
) -> tuple[frozenset[str], dict[str, str]]:
    """Return the flags and the parameters of the variant with these names.

    The value of each parameter is its name.
    """
    _check_names("present", present, statement.required | statement.optional | statement.flags)
    flags = statement.flags & frozenset(present)
    if len(flags & statement.orders) > 1:
        raise InvalidInput("present", "must name one order at most")
    if statement.first_order is not None and not flags & statement.orders:
        flags |= {statement.first_order}
    parameters = statement.required | (statement.optional & frozenset(present))
    return flags, {name: name for name in sorted(parameters)}


def _check_names(field: str, names: Collection[str], known: Collection[str]) -> None:
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise InvalidInput(field, "must be names")
    if unknown := sorted(set(names) - set(known)):
        raise InvalidInput(
            field, f"the statement has no {unknown[0]}{_suggestion(unknown[0], known)}"
        )


def _suggestion(name: str, names: Collection[str]) -> str:
    """Return names that resemble this one, as the end of a sentence."""
    without_folder = [each for each in sorted(names) if each.endswith(f"/{name}")]
    similar = without_folder or difflib.get_close_matches(name, sorted(names), cutoff=0.5)
    return f": did you mean {' or '.join(similar)}?" if similar else ""
