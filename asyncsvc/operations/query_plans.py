"""Shows a statement as the server gets it, and asks the server what it would do with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from asyncsvc.database import sql_files
from asyncsvc.errors import InvalidInput
from asyncsvc.models import Argument, Plan
from asyncsvc.validation.checks import invalid_value
from asyncsvc.validation.inputs import invalid_input
from asyncsvc.validation.types import MAX_INT, ErrorText, Instant

if TYPE_CHECKING:
    from asyncsvc.database import Executor
    from asyncsvc.database.sql_files import Query, Statement
    from asyncsvc.settings import Settings

_PLANNED: Final = re.compile(r"/\*.*?\*/\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b")


def _bytes(value: object) -> object:
    """Read bytes as PostgreSQL writes them."""
    if not isinstance(value, str):
        return value
    try:
        return bytes.fromhex(value.removeprefix("\\x"))
    except ValueError:
        raise invalid_value("must be hexadecimal, as \\x0a") from None


_TYPES: Final[Mapping[str, tuple[Any, object]]] = {
    # The text is JSON as well, since JSON crosses as text.
    "text": (ErrorText, "1"),
    "bool": (bool, True),
    "int2": (Annotated[int, Field(ge=-(2**15), lt=2**15)], 1),
    "int4": (Annotated[int, Field(ge=-MAX_INT - 1, le=MAX_INT)], 1),
    "int8": (Annotated[int, Field(ge=-(2**63), lt=2**63)], 1),
    "float8": (float, 1.0),
    "numeric": (Decimal, Decimal(1)),
    "timestamptz": (Instant, datetime(2000, 1, 1, tzinfo=UTC)),
    "interval": (timedelta, timedelta(days=1)),
    "bytea": (Annotated[bytes, BeforeValidator(_bytes)], b"\x00"),
}
"""What a value must be for each type of PostgreSQL, and one that does no harm."""
_WORDS: Final = {"interval": "day", "tz": "UTC"}
"""Parameters of the type text that the server takes certain words for."""


def variant(name: str, present: Collection[str] = ()) -> Query:
    """Compile the statement with these present; the arguments are the parameters' names.

    Raises InvalidInput for a name that does not exist, and for more than one order.
    """
    statement = statement_of(name)
    return statement.bind(*_chosen(statement, present))


def statement_of(name: str) -> Statement:
    """Return the statement of this name. Raises InvalidInput, with what resembles it."""
    names = sql_files.names()
    if name not in names:
        raise InvalidInput("name", f"there is no such statement{_near(name, names)}")
    return sql_files.load(name)


async def explain(
    executor: Executor,
    settings: Settings,
    name: str,
    present: Collection[str],
    values: Mapping[str, object],
) -> Plan:
    """Return the plan; see `AsyncSvc.explain`."""
    statement = statement_of(name)
    parameters = statement.required | statement.optional
    if strange := sorted(values.keys() - parameters):
        raise InvalidInput("values", f"has no such parameter{_near(strange[0], parameters)}")
    flags, names = _chosen(statement, {*present, *values})
    query = statement.bind(flags, names)
    if not _PLANNED.match(query.text):
        raise InvalidInput("name", "is DO or DDL, for which PostgreSQL makes no plan")
    types = dict(zip(names_of(query), await executor.parameter_types(query), strict=True))
    arguments = tuple(
        _argument(parameter, kind, values, settings) for parameter, kind in types.items()
    )
    bound = statement.bind(flags, {each.name: each.value for each in arguments})
    lines = await executor.explain(bound)
    return Plan(name=name, text=query.text, arguments=arguments, lines=tuple(lines))


def names_of(query: Query) -> list[str]:
    """Return the names of a variant's parameters, in the order of their numbers."""
    return [str(name) for name in query.arguments]


def _chosen(
    statement: Statement, present: Collection[str]
) -> tuple[frozenset[str], dict[str, object]]:
    """Return the flags that are raised and the parameters that are present, as their names."""
    known = statement.required | statement.optional | statement.flags
    if strange := sorted(set(present) - known):
        raise InvalidInput("present", f"has no such name{_near(strange[0], known)}")
    flags = statement.flags & frozenset(present)
    if len(flags & statement.orders) > 1:
        raise InvalidInput("present", "must name one order at most")
    if statement.first_order is not None and not flags & statement.orders:
        flags |= {statement.first_order}
    names = statement.required | (statement.optional & frozenset(present))
    return flags, {name: name for name in sorted(names)}


def _near(name: str, names: Iterable[str]) -> str:
    """Return what names resemble this one, as the end of a sentence."""
    everything = sorted(names)
    within = [each for each in everything if name and name in each]
    near = within[:3] or difflib.get_close_matches(name, everything, cutoff=0.5)
    return f": did you mean {' or '.join(near)}?" if near else ""


def _argument(name: str, kind: str, values: Mapping[str, object], settings: Settings) -> Argument:
    """Return the value of a parameter, converted, or one in its place."""
    if name not in values:
        return Argument(name=name, type=kind, value=_default(name, kind), is_given=False)
    value = _converted(name, kind, values[name], settings)
    return Argument(name=name, type=kind, value=value, is_given=True)


def _default(name: str, kind: str) -> object:
    if kind == "text" and name in _WORDS:
        return _WORDS[name]
    element, _, is_list = kind.partition("[")
    return [_TYPES[element][1]] if is_list else _TYPES[element][1]


def _converted(name: str, kind: str, value: object, settings: Settings) -> object:
    """Check a value by its type, and convert text. Raises InvalidInput naming the parameter."""
    if value is None:
        return None
    element, _, is_list = kind.partition("[")
    form = _TYPES[element][0]
    adapter = TypeAdapter[object](list[form] if is_list else form)  # type: ignore[valid-type]
    try:
        if is_list and isinstance(value, str):
            return adapter.validate_json(value, context=settings)
        return adapter.validate_python(value, context=settings)
    except ValidationError as error:
        found = invalid_input(error)
        raise InvalidInput(name, found.reason) from None
