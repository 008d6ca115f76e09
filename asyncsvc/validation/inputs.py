"""The base of what a caller hands in: a frozen model that refuses what is wrong."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from asyncsvc.errors import InvalidInput

if TYPE_CHECKING:
    from pydantic import ModelWrapValidatorHandler, ValidationInfo


_LONGEST_NAME: Final = 64
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,23}", re.ASCII)


def invalid_input(error: ValidationError, names: tuple[str, ...] = ()) -> InvalidInput:
    """Turn pydantic's error into ours, by its first complaint and without the refused value.

    `names` are the parameters of the call that was checked: pydantic knows a positional argument
    by its place only.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place, *inner = first["loc"] or ("value",)
    head = names[place] if names and isinstance(place, int) else place
    # The keys of a mapping are the caller's own, and may be anything.
    path = [str(part).encode(errors="replace").decode()[:_LONGEST_NAME] for part in (head, *inner)]
    if first["type"] == "extra_forbidden":
        path[-1] = told_name(path[-1])
    return InvalidInput(".".join(path), first["msg"])


def told_name(name: str) -> str:
    """Return the name of a field that is none, or `?` for what may be a secret that came there."""
    return name if _NAME.fullmatch(name) else "?"


class Input(BaseModel):
    """The base of all inputs: frozen, strict, no unknown fields.

    Built by hand, a wrong type or a number out of range raises `InvalidInput`. The length and the
    content of text and JSON are checked by the method that it is given to, with that service's
    settings: hence `revalidate_instances`.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        revalidate_instances="always",
        hide_input_in_errors=True,
        defer_build=True,  # at first use: importing stays quick
    )

    @model_validator(mode="wrap")
    @classmethod
    def _raise_invalid_input(
        cls, value: object, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo
    ) -> Self:
        try:
            return handler(dict(value) if isinstance(value, Mapping) else value)
        except ValidationError as error:
            if info.context is not None:  # the method's own check names the whole path
                raise
            refused = invalid_input(error)
        # Outside of the handler: pydantic's error, which holds the values, is not to be behind it.
        raise refused
