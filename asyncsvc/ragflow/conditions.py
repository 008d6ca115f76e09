"""Conditions on columns in RAGFlow's notation: `APIToken.token == token`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from asyncsvc.errors import InvalidInput


@dataclass(frozen=True)
class Condition:
    """A column has one of these values."""

    column: str
    values: tuple[object, ...]


class Column:
    """A column, for conditions and for the order of a query."""

    def __init__(self, name: str) -> None:
        """Set the name."""
        self.name = name

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        """Return the condition. Raises InvalidInput for None, which no column supports."""
        if value is None:
            raise InvalidInput(self.name, "must not be None")
        return Condition(self.name, (value,))

    def in_(self, values: Collection[str]) -> Condition:
        """Return the condition. Raises InvalidInput if the values are not a collection of text."""
        is_collection = isinstance(values, Collection) and not isinstance(values, str)
        if not is_collection or not all(isinstance(each, str) for each in values):
            raise InvalidInput(self.name, "must be a collection of text")
        return Condition(self.name, tuple(values))

    __hash__ = None  # type: ignore[assignment]


class API4Conversation:
    """The columns of a conversation for filters, and 2 for the order of a query."""

    id = Column("id")
    dialog_id = Column("dialog_id")
    user_id = Column("user_id")
    exp_user_id = Column("exp_user_id")
    name = Column("name")
    source = Column("source")
    create_time = Column("create_time")
    update_time = Column("update_time")


class APIToken:
    """The columns of a token for filters."""

    tenant_id = Column("tenant_id")
    token = Column("token")
    dialog_id = Column("dialog_id")
    source = Column("source")


Filters: TypeAlias = Sequence[Condition]
ValuesByColumn: TypeAlias = Mapping[str, tuple[object, ...]]


def conditions(filters: Mapping[str, object]) -> list[Condition]:
    """Return the conditions of keyword arguments. A list or set means any of its items.

    None matches no row.
    """
    return [
        Condition(
            column,
            () if value is None else tuple(value) if isinstance(value, list | set) else (value,),
        )
        for column, value in filters.items()
    ]


def values_by_column(filters: Filters, known: Collection[str]) -> dict[str, tuple[object, ...]]:
    """Return the values that satisfy all conditions on each column.

    Raises InvalidInput for a condition on another column.
    """
    if not isinstance(filters, Sequence):
        raise InvalidInput("filters", "must be a list of conditions")
    values: dict[str, tuple[object, ...]] = {}
    for each in filters:
        if not isinstance(each, Condition) or each.column not in known:
            raise InvalidInput("filters", f"must be on {', '.join(sorted(known))}")
        allowed = values.get(each.column, each.values)
        values[each.column] = tuple(
            value for value in each.values if value is not None and value in allowed
        )
    return values


def satisfies(row: Mapping[str, object], where: ValuesByColumn) -> bool:
    """Return whether each column of the row has one of its values."""
    return all(row[column] in values for column, values in where.items())
