"""Usage: that of the requests to language models, and statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Final

from pydantic import GetCoreSchemaHandler, ValidationInfo, field_validator
from pydantic_core import CoreSchema, core_schema

from asyncsvc.models.base import Model
from asyncsvc.validation.inputs import Input, invalid_value
from asyncsvc.validation.types import (
    COST_CONTEXT,
    Cost,
    ModelLabel,
    SignedCost,
    SignedCount,
    SignedTokens,
    Tokens,
    TotalCost,
)

MAX_USAGES: Final = 32
"""The largest number of usages of one turn."""


class Usage(Input):
    """The usage of one request to a language model, or of several to the same model.

    All input counts as input and all output as output: cached and written tokens are a part of
    `input_tokens`, and reasoning is a part of `output_tokens`. The functions of `asyncsvc.metering`
    map the answers of providers, some of which count otherwise.
    """

    input_tokens: Tokens
    """All tokens that the model read, with those of caches."""
    output_tokens: Tokens
    """All tokens that the model generated, with those of its reasoning."""
    cached_input_tokens: Tokens = 0
    """The input tokens that the provider read from its cache."""
    cache_write_tokens: Tokens = 0
    """The input tokens that the provider wrote to its cache."""
    reasoning_tokens: Tokens = 0
    """The output tokens of the model's reasoning."""
    requests: Tokens = 1
    """The number of requests."""
    cost: Cost | None = None
    """The cost as a Decimal, rounded half even to 9 places, in the one currency of the application.
    None: unknown, which counts as `unpriced`. 0: free."""
    model: ModelLabel | None = None
    """The application's label of the model, for example its provider and name: "openai/gpt-5"."""

    @property
    def tokens(self) -> int:
        """All tokens: input and output."""
        return self.input_tokens + self.output_tokens

    @field_validator("cached_input_tokens", "cache_write_tokens")
    @classmethod
    def _is_part_of_input(cls, value: int, info: ValidationInfo) -> int:
        of_caches = value + info.data.get("cached_input_tokens", 0)
        if of_caches > info.data.get("input_tokens", of_caches):
            raise invalid_value("the tokens of caches must be part of input_tokens")
        return value

    @field_validator("reasoning_tokens")
    @classmethod
    def _is_part_of_output(cls, value: int, info: ValidationInfo) -> int:
        if value > info.data.get("output_tokens", value):
            raise invalid_value("must be part of output_tokens")
        return value


class UsageAdjustment(Input):
    """A correction of usage: the amounts to add to the counters. Negative amounts withdraw."""

    rounds: SignedCount = 0
    """Rounds."""
    requests: SignedTokens = 0
    """Requests to language models."""
    input_tokens: SignedTokens = 0
    """Input tokens. They and the output tokens add to `tokens`."""
    cached_input_tokens: SignedTokens = 0
    """Input tokens of caches."""
    cache_write_tokens: SignedTokens = 0
    """Input tokens that were written to caches."""
    output_tokens: SignedTokens = 0
    """Output tokens."""
    reasoning_tokens: SignedTokens = 0
    """Output tokens of reasoning."""
    total_tokens: SignedTokens = 0
    """Tokens of turns that know only a total. They add to `tokens` alone."""
    cost: SignedCost = Decimal(0)
    """The cost, at most 1,000,000, rounded half even to 9 places."""
    unpriced: SignedCount = 0
    """Usages without a cost: -1 with the `cost` that became known later."""
    model: ModelLabel | None = None
    """The model whose usage changes."""

    @property
    def tokens(self) -> int:
        """All tokens: input, output and those of turns that know only a total."""
        return self.input_tokens + self.output_tokens + self.total_tokens


class _OneOrMore:
    """Accepts one usage or a sequence of them, and returns a tuple; None without any."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Validate the items as a sequence, so that an error names the index and the field."""
        one, many = handler.generate_schema(Usage), handler.generate_schema(Sequence[Usage])
        return core_schema.no_info_before_validator_function(
            _sequence_of_usages,
            core_schema.nullable_schema(many),
            json_schema_input_schema=core_schema.union_schema(
                [one, many, core_schema.none_schema()]
            ),
        )


def _sequence_of_usages(value: object) -> object:
    if value is None or isinstance(value, Usage | Mapping):
        return None if value is None else (value,)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise invalid_value("must be a Usage or a sequence of them")
    if len(value) > MAX_USAGES:
        raise invalid_value(f"must be at most {MAX_USAGES}")
    return tuple(value) or None


Usages = Annotated[Usage | Sequence[Usage] | None, _OneOrMore()]
"""The usage of a turn: one `Usage`, up to 32 of them, or None. A model holds a tuple or None."""
UsagesLike = Annotated[
    Usage | Mapping[str, object] | Sequence[Usage | Mapping[str, object]], _OneOrMore()
]
"""One `Usage`, or up to 32 of them, as models or equal mappings."""


def usages(value: Usages | UsagesLike) -> Sequence[Usage]:
    """Return the usages of a validated value; none for None."""
    each = value if isinstance(value, Sequence) else [value]
    return [usage for usage in each if isinstance(usage, Usage)]


def refuse_total(usage: Usages, info: ValidationInfo) -> Usages:
    """Check, as a validator of the field `usage`, that the model has no `tokens` beside it."""
    if usage is not None and info.data.get("tokens"):
        raise invalid_value("must not be passed together with tokens")
    return usage


def nano_units(cost: Decimal) -> int:
    """Convert a cost to whole nano units, the stored form, because integer sums are exact."""
    return int(cost.scaleb(9, context=COST_CONTEXT))


class UsageBucket(Model):
    """The usage of one hour, day, week or month, or of a whole range; perhaps of one group.

    Counters that a conversation does not keep are None by creation.
    """

    dt: datetime
    """The first instant of the bucket, with the offset that its zone has then.

    An hour in which a clock shifts by half an hour is two buckets. The label of the second is the
    start of the hour in the new offset, which is before the shift.
    """
    group: str | None = None
    """The model, token, user, dialog or source of the usage; None for usage without one, and in
    statistics without groups."""
    is_other: bool = False
    """Whether this is the sum of all groups that have no rows of their own."""
    conversations: int
    """The number of conversations; by activity, that were created."""
    users: int | None
    """The number of distinct users, without the empty user id: of these conversations, or by
    activity those who acted. None: unknown, for the other groups and for groups of a range."""
    rounds: int
    """The sum of rounds."""
    requests: int | None = None
    """The number of requests to language models."""
    input_tokens: int | None = None
    """The input tokens, with those of caches."""
    cached_input_tokens: int | None = None
    """The input tokens that providers read from a cache."""
    cache_write_tokens: int | None = None
    """The input tokens that providers wrote to a cache."""
    output_tokens: int | None = None
    """The output tokens, with those of reasoning."""
    reasoning_tokens: int | None = None
    """The output tokens of reasoning."""
    tokens: int
    """The sum of language model tokens."""
    cost: TotalCost | None = None
    """The sum of known costs, exact."""
    unpriced: int | None = None
    """The number of usages without a cost."""
    unmetered: int | None = None
    """The number of rounds without usage."""
    duration: float
    """The sum of the durations of turns, in seconds."""
    round: float
    """The mean number of rounds per conversation; 0 without conversations."""
    thumb_up: int
    """The number of messages with positive feedback."""
    thumb_down: int
    """The number of messages with negative feedback."""
