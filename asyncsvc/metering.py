"""Map the answers of language model providers to `Usage`, without their SDKs.

Each function takes an answer, or only its usage, as a mapping or as an object of the SDK, and
returns a `Usage`, or None if the answer has none. Of a stream, pass the chunk that has the usage:

- OpenAI chat completions: the last chunk, with `stream_options={"include_usage": True}`.
- OpenAI responses: the `response` of the event `response.completed` (or `incomplete`, `failed`).
- Anthropic: the final message of the SDK, or `message_start` updated by the last `message_delta`.
- Gemini: the last chunk. Earlier ones count less, and chunks must not be summed.
- Bedrock: the event `metadata`.
- OpenRouter: the last chunk.

A provider that counts wrong must not cost a turn: a count that is no number, negative or too large,
and a part that is larger than the whole, is limited, and the logger `asyncsvc` gets a warning.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from asyncsvc.models import Usage
from asyncsvc.validation.types import MAX_COST, MAX_LABEL_LENGTH, MAX_USAGE_TOKENS
from asyncsvc.validation.unstorable import replace_in_text

__all__ = [
    "usage_from_anthropic",
    "usage_from_bedrock",
    "usage_from_gemini",
    "usage_from_openai",
    "usage_from_openrouter",
]

_log: Final = logging.getLogger("asyncsvc")


def usage_from_openai(
    payload: object, *, model: str | None = None, cost: Decimal | None = None
) -> Usage | None:
    """Return the usage of an answer of OpenAI: chat completions, responses or embeddings.

    It also fits servers with the same format, and litellm with its own names for tokens of the
    cache. Where `total_tokens` shows that the completion does not contain its reasoning, as some
    of them count, the reasoning is added to the output.

    Args:
        payload: The answer or its `usage`, as a mapping or an object of the SDK.
        model: The label of the model, 1 to 200 characters. None: the `model` of the answer.
        cost: The cost of the answer. None: unknown.

    Returns:
        The usage; None if the answer has none.

    Raises:
        InvalidInput: `cost` is out of range.
    """
    counts = _Counts.of(payload, "OpenAI", wrappers=("usage",), fields=_OPENAI_COUNTS)
    return None if counts is None else counts.usage_of_openai(_model(payload, model), cost)


def usage_from_openrouter(payload: object, *, model: str | None = None) -> Usage | None:
    """Return the usage of an answer of OpenRouter, with its cost in credits.

    Args:
        payload: The answer or its `usage`, as a mapping or an object of the SDK of OpenAI.
        model: The label of the model, 1 to 200 characters. None: the `model` of the answer.

    Returns:
        The usage; None if the answer has none.
    """
    counts = _Counts.of(
        payload, "OpenRouter", wrappers=("usage",), fields=(*_OPENAI_COUNTS, "cost")
    )
    if counts is None:
        return None
    return counts.usage_of_openai(_model(payload, model), counts.cost("cost"))


def usage_from_anthropic(
    payload: object, *, model: str | None = None, cost: Decimal | None = None
) -> Usage | None:
    """Return the usage of an answer of Anthropic.

    Anthropic does not count the tokens of caches as input; here they are a part of it. The steps of
    a compaction, which only `iterations` lists, are added. A step of the type `advisor_message` has
    a model of its own: pass the step to this function for a second `Usage` of the turn.

    Args:
        payload: The message or its `usage`, as a mapping or an object of the SDK.
        model: The label of the model, 1 to 200 characters. None: the `model` of the message.
        cost: The cost of the answer. None: unknown.

    Returns:
        The usage; None if the message has none.

    Raises:
        InvalidInput: `cost` is out of range.
    """
    fields = ("input_tokens", "output_tokens")
    counts = _Counts.of(payload, "Anthropic", wrappers=("usage",), fields=fields)
    if counts is None:
        return None
    steps = counts.read("iterations")
    compactions = [
        _Counts("Anthropic", step)
        for step in (steps if isinstance(steps, list | tuple) else ())
        if _read(step, "type") == "compaction"
    ]
    parts = [counts, *compactions]
    cached = sum(part.count("cache_read_input_tokens") for part in parts)
    written = sum(_written_by_anthropic(part) for part in parts)
    return counts.usage(
        input_tokens=sum(part.count("input_tokens") for part in parts) + cached + written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=sum(part.count("output_tokens") for part in parts),
        reasoning_tokens=counts.part("output_tokens_details").count("thinking_tokens"),
        requests=len(parts),
        model=_model(payload, model),
        cost=cost,
    )


def usage_from_gemini(
    payload: object, *, model: str | None = None, cost: Decimal | None = None
) -> Usage | None:
    """Return the usage of an answer of Gemini, of its API or of Vertex AI.

    Gemini does not count thoughts as output, nor the prompts of tools as input; here they are.

    Args:
        payload: The answer or its `usage_metadata`, as a mapping or an object of the SDK.
        model: The label of the model, 1 to 200 characters. None: the `model_version` of the answer.
        cost: The cost of the answer. None: unknown.

    Returns:
        The usage; None if the answer has none.

    Raises:
        InvalidInput: `cost` is out of range.
    """
    counts = _Counts.of(
        payload,
        "Gemini",
        wrappers=("usageMetadata", "usage_metadata"),
        fields=("promptTokenCount", "prompt_token_count", "totalTokenCount", "total_token_count"),
    )
    if counts is None:
        return None
    thoughts = counts.count("thoughtsTokenCount", "thoughts_token_count")
    prompts = counts.count("promptTokenCount", "prompt_token_count")
    tool_prompts = counts.count("toolUsePromptTokenCount", "tool_use_prompt_token_count")
    answer = counts.count(
        *("candidatesTokenCount", "candidates_token_count"),
        *("responseTokenCount", "response_token_count"),
    )
    return counts.usage(
        input_tokens=prompts + tool_prompts,
        cached_input_tokens=counts.count("cachedContentTokenCount", "cached_content_token_count"),
        output_tokens=answer + thoughts,
        reasoning_tokens=thoughts,
        model=_model(payload, model, "modelVersion", "model_version"),
        cost=cost,
    )


def usage_from_bedrock(
    payload: object, *, model: str | None = None, cost: Decimal | None = None
) -> Usage | None:
    """Return the usage of an answer of Bedrock's Converse API.

    Bedrock does not count the tokens of caches as input; here they are a part of it.

    Args:
        payload: The answer, the event `metadata` of a stream, or its `usage`.
        model: The label of the model, 1 to 200 characters, which the answer does not contain.
        cost: The cost of the answer. None: unknown.

    Returns:
        The usage; None if the answer has none.

    Raises:
        InvalidInput: `cost` is out of range.
    """
    counts = _Counts.of(
        payload if _read(payload, "metadata") is None else _read(payload, "metadata"),
        "Bedrock",
        wrappers=("usage",),
        fields=("inputTokens", "outputTokens"),
    )
    if counts is None:
        return None
    cached = counts.count("cacheReadInputTokens")
    written = counts.count("cacheWriteInputTokens")
    return counts.usage(
        input_tokens=counts.count("inputTokens") + cached + written,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=counts.count("outputTokens"),
        model=model,
        cost=cost,
    )


_OPENAI_INPUT: Final = ("prompt_tokens", "input_tokens")
_OPENAI_OUTPUT: Final = ("completion_tokens", "output_tokens")
_OPENAI_COUNTS: Final = (*_OPENAI_INPUT, *_OPENAI_OUTPUT)


@dataclass(frozen=True, slots=True)
class _Counts:
    """The usage of an answer as its provider reports it."""

    provider: str
    source: object

    @classmethod
    def of(
        cls, payload: object, provider: str, *, wrappers: tuple[str, ...], fields: tuple[str, ...]
    ) -> _Counts | None:
        """Return the usage of an answer, or the payload itself if it is the usage."""
        wrapped = _read(payload, *wrappers)
        source = payload if wrapped is None else wrapped
        if _read(source, *fields) is not None:
            return cls(provider, source)
        if wrapped is not None:
            _log.warning("usage of %s: it has none of %s", provider, ", ".join(fields))
        return None

    def read(self, *names: str) -> object:
        """Return the first of these members that is not None."""
        return _read(self.source, *names)

    def part(self, *names: str) -> _Counts:
        """Return the details of a count, which may be missing."""
        return _Counts(self.provider, self.read(*names))

    def count(self, *names: str) -> int:
        """Return the first of these members as a number of tokens; 0 without one."""
        value = self.read(*names)
        if value is None:
            return 0
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self._warn(f"{names[0]} is no integer and counts as 0")
            return 0
        if not 0 <= value <= MAX_USAGE_TOKENS:
            self._warn(f"{names[0]} is not within 0 and {MAX_USAGE_TOKENS}")
        return max(0, min(value, MAX_USAGE_TOKENS))

    def cost(self, name: str) -> Decimal | None:
        """Return a cost; None if it is unknown or out of range."""
        value = self.read(name)
        if value is None:
            return None
        if not isinstance(value, bool) and isinstance(value, int | float | Decimal | str):
            try:
                cost = Decimal(str(value))
            except (InvalidOperation, ValueError):
                cost = Decimal("NaN")
            if cost.is_finite() and 0 <= cost <= MAX_COST:
                return cost
        self._warn(f"{name} is not within 0 and {MAX_COST}, so it is unknown")
        return None

    def usage_of_openai(self, model: str | None, cost: Decimal | None) -> Usage:
        """Return the usage of a server with OpenAI's format."""
        details = self.part("prompt_tokens_details", "input_tokens_details")
        if self.read(*_OPENAI_INPUT) is None:
            self._warn("it has no input, which counts as 0")
        input_tokens = self.count(*_OPENAI_INPUT)
        output_tokens = self.count(*_OPENAI_OUTPUT)
        reasoning_tokens = self.part("completion_tokens_details", "output_tokens_details").count(
            "reasoning_tokens"
        )
        if self.count("total_tokens") == input_tokens + output_tokens + reasoning_tokens:
            output_tokens += reasoning_tokens
        return self.usage(
            input_tokens=input_tokens,
            cached_input_tokens=details.count("cached_tokens")
            or self.count("cache_read_input_tokens"),
            cache_write_tokens=details.count("cache_write_tokens")
            or self.count("cache_creation_input_tokens"),
            output_tokens=output_tokens,
            reasoning_tokens=reasoning_tokens,
            model=model,
            cost=cost,
        )

    def usage(
        self,
        *,
        input_tokens: int,
        output_tokens: int,
        cached_input_tokens: int,
        cache_write_tokens: int = 0,
        reasoning_tokens: int = 0,
        requests: int = 1,
        model: str | None,
        cost: Decimal | None,
    ) -> Usage:
        """Return a consistent usage: no part is larger than the whole."""
        input_tokens = self._limited("input", input_tokens, MAX_USAGE_TOKENS)
        output_tokens = self._limited("output", output_tokens, MAX_USAGE_TOKENS)
        cached = self._limited("cached input", cached_input_tokens, input_tokens)
        return Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_input_tokens=cached,
            cache_write_tokens=self._limited(
                "cache write", cache_write_tokens, input_tokens - cached
            ),
            reasoning_tokens=self._limited("reasoning", reasoning_tokens, output_tokens),
            requests=requests,
            model=model,
            cost=cost,
        )

    def _limited(self, name: str, value: int, maximum: int) -> int:
        if value > maximum:
            self._warn(f"{value} tokens of {name} are limited to {maximum}")
        return min(value, maximum)

    def _warn(self, reason: str) -> None:
        _log.warning("usage of %s: %s", self.provider, reason)


def _written_by_anthropic(counts: _Counts) -> int:
    """Return the tokens written to the cache: their sum, or those of each lifetime."""
    if counts.read("cache_creation_input_tokens") is not None:
        return counts.count("cache_creation_input_tokens")
    lifetimes = counts.part("cache_creation")
    return lifetimes.count("ephemeral_5m_input_tokens") + lifetimes.count(
        "ephemeral_1h_input_tokens"
    )


def _read(source: object, *names: str) -> object:
    """Return the first member or attribute that is not None."""
    for name in names:
        value = source.get(name) if isinstance(source, Mapping) else getattr(source, name, None)
        if value is not None:
            return value
    return None


def _model(payload: object, model: str | None, *names: str) -> str | None:
    """Return the label of the model: that of the caller, otherwise that of the answer."""
    if model is not None:
        return model
    name = _read(payload, *(names or ("model",)))
    if not isinstance(name, str) or not name:
        return None
    text, _ = replace_in_text(name[:MAX_LABEL_LENGTH])
    return text
