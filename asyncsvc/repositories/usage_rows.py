"""Arguments of the statements that insert into the usage ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic_core import to_json

from asyncsvc.models import Usage, UsageAdjustment, nano_units
from asyncsvc.validation.types import UNSET, UnsetType


def usages_to_json(usages: Sequence[Usage]) -> str | UnsetType:
    """Return the columns of usages as a JSON array; UNSET without a usage."""
    return to_json([_columns(usage) for usage in usages]).decode() if usages else UNSET


def usages_by_id_to_json(usages: Mapping[str, Sequence[Usage]]) -> str | UnsetType:
    """Return the columns of the usages of several conversations; UNSET without a usage."""
    columns = [{"id": id} | _columns(usage) for id, each in usages.items() for usage in each]
    return to_json(columns).decode() if columns else UNSET


def _columns(usage: Usage) -> dict[str, object]:
    # The iteration of a model takes several times as long.
    return vars(usage) | {"cost": None if usage.cost is None else nano_units(usage.cost)}


def adjustment_columns(adjustment: UsageAdjustment) -> dict[str, object]:
    """Return the columns of a correction, with the sum of its tokens."""
    return dict(adjustment) | {
        "tokens": adjustment.tokens,
        "cost": nano_units(adjustment.cost),
    }


def optional(**parameters: object) -> dict[str, object]:
    """Return the parameters that are not None, for parts of a statement that need a value."""
    return {name: value for name, value in parameters.items() if value is not None}
