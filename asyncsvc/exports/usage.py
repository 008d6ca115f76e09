"""The usage of messages in exports, and its sums by model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from asyncsvc.exports.model import JsonObject, Notes
from asyncsvc.metering import usage_from_openai
from asyncsvc.models import Usage
from asyncsvc.models.usage import MAX_USAGES
from asyncsvc.validation.types import MAX_USAGE_TOKENS

_OF_OLLAMA: Final = {"prompt_eval_count": "prompt_tokens", "eval_count": "completion_tokens"}
_SUMMED: Final = (
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "requests"),
)


def usage_of_message(usage: JsonObject, model: str | None) -> Usage | None:
    """Return the usage in the names of OpenAI or of Ollama; None without one."""
    renamed = {_OF_OLLAMA.get(name, name): value for name, value in usage.items()}
    return usage_from_openai({"usage": renamed, "model": model}) if renamed else None


def sums_by_model(usages: Iterable[Usage | None], notes: Notes) -> list[Usage]:
    """Return the sum of the usage of each model, without costs; at most 32.

    A sum that is too large is dropped, and the models after the 31st are summed without a name.
    """
    sums = dict[str | None, dict[str, int]]()
    for usage in usages:
        if usage is None:
            continue
        is_new = usage.model not in sums
        model = None if is_new and len(sums) >= MAX_USAGES - 1 else usage.model
        counts = sums.setdefault(model, dict.fromkeys(_SUMMED, 0))
        for name in _SUMMED:
            counts[name] += getattr(usage, name)
    return [
        Usage(
            input_tokens=counts["input_tokens"],
            output_tokens=counts["output_tokens"],
            cached_input_tokens=counts["cached_input_tokens"],
            cache_write_tokens=counts["cache_write_tokens"],
            reasoning_tokens=counts["reasoning_tokens"],
            requests=counts["requests"],
            model=model,
        )
        for model, counts in sums.items()
        if _is_storable(counts, notes)
    ]


def _is_storable(counts: Mapping[str, int], notes: Notes) -> bool:
    is_storable = all(count <= MAX_USAGE_TOKENS for count in counts.values())
    if not is_storable:
        notes.changed["usage dropped"] += 1
    return is_storable
