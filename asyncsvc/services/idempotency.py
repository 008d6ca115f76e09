"""The hashes that identify the body of a call with an idempotency key."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from asyncsvc.models import Turn, Usage, UsageAdjustment, microseconds, nano_units
from asyncsvc.validation.json_values import canonical_json
from asyncsvc.validation.types import UNSET


def hash_of_turn(turn: Turn) -> bytes:
    """Return the SHA-256 that identifies the turn of an idempotency key.

    The hash does not cover `token_id`: a call that is repeated with a rotated token is a replay.
    """
    digest = hashlib.sha256()
    for part in _identifying_parts(turn):
        data = part.encode()
        digest.update(b"%d:" % len(data) + data)
    return digest.digest()


def hash_of_usage(usages: Sequence[Usage], *names: str | None) -> bytes:
    """Return the SHA-256 that identifies usage without a message, with its subjects."""
    values = [[_identity(usage) for usage in usages], *names]
    return hashlib.sha256(canonical_json(values).encode()).digest()


def hash_of_adjustment(adjustment: UsageAdjustment, *names: str | None) -> bytes:
    """Return the SHA-256 that identifies a correction, with its subjects."""
    values = [adjustment.model_dump(mode="json"), *names]
    return hashlib.sha256(canonical_json(values).encode()).digest()


def _identity(usage: Usage) -> list[object]:
    cost = None if usage.cost is None else nano_units(usage.cost)
    return [*usage.model_dump(exclude={"cost"}).values(), cost]


def _identifying_parts(turn: Turn) -> Iterator[str]:
    for message in turn.messages:
        yield message.role
        yield message.content
        yield canonical_json(message.reference)
        yield canonical_json(message.payload)
    yield f"{turn.tokens} {microseconds(turn.duration)} {turn.round}"
    if turn.usage is not None:
        yield "usage"
        yield canonical_json([_identity(usage) for usage in turn.usages])
    if turn.user_id is not None:
        yield "user_id"
        yield turn.user_id
    ids = [message.id for message in turn.messages]
    times = [each.created_at and each.created_at.isoformat() for each in turn.messages]
    for name, values in (("ids", ids), ("times", times)):
        if any(values):
            yield name
            yield canonical_json(values)
    for name in ("errors", "dsl", "merge_dsl", "merge_metadata"):
        value = getattr(turn, name)
        if value is not UNSET:
            yield name
            yield canonical_json(value)
