"""Limits on the size of inputs and results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final, Literal, Self

from pydantic import Field, PrivateAttr

from asyncsvc.validation.inputs import Input

MAX_SECONDS: Final = 10**9
"""About 30 years: the largest time span that is added to or subtracted from the server's clock."""

Positive = Annotated[int, Field(gt=0, le=2**31 - 1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Limits(Input):
    """Limits on the size of inputs and results. A call beyond a limit raises InvalidInput."""

    unstorable_text: Literal["reject", "replace"] = "reject"
    """The treatment of characters that PostgreSQL cannot store, NUL and lone surrogates, in message
    content, names, titles, errors and JSON: "reject" raises InvalidInput, "replace" stores U+FFFD
    in their place."""

    max_page_size: Positive = 1_000
    """Maximum items of one page or read. It does not apply to the default page sizes."""
    max_page_window: Positive = 10**9
    """Maximum of page number times page size. Pages by cursor have no such limit."""
    max_message_bytes: Positive = 2**20
    """Maximum bytes of the UTF-8 content of one message, and of the `errors` of a conversation."""
    max_json_bytes: Positive = 2**23
    """Maximum bytes of one JSON value, as the server returns it: UTF-8, all digits of numbers."""
    max_json_depth: Annotated[int, Field(gt=0, le=200)] = 64
    """Maximum nested lists and objects of one JSON value."""
    max_batch_size: Positive = 1_000
    """Maximum messages of one turn, or ids, scopes, conversations or patches of one call."""
    max_batch_bytes: Positive = 2**25
    """Maximum bytes of the text and JSON in one turn, `create_many` or `update_many_by_id`."""
    max_buckets: Positive = 10_000
    """Maximum buckets of one usage statistic."""
    max_rotation_overlap: Annotated[Seconds, Field(le=MAX_SECONDS)] = 30 * 86_400.0
    """Maximum seconds for which a rotated token stays valid beside its successor."""
    _on_replaced: Callable[[int], None] | None = PrivateAttr(None)

    def counting_replacements(self, on_replaced: Callable[[int], None]) -> Self:
        """Return equal limits whose checks report the number of characters that they replace."""
        limits = self.model_copy()
        limits._on_replaced = on_replaced  # noqa: SLF001 - an attribute of this class
        return limits

    def count_replacements(self, count: int) -> None:
        """Report replaced characters, if the caller counts them."""
        if self._on_replaced is not None:
            self._on_replaced(count)
