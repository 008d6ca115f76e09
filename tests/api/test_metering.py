"""Usage of requests to language models: the model, and the maps of the answers of providers."""

import copy
import decimal
import functools
import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from asyncsvc import InvalidInput, Message, Turn, Usage, UsageAdjustment
from asyncsvc.metering import (
    usage_from_anthropic,
    usage_from_bedrock,
    usage_from_gemini,
    usage_from_openai,
    usage_from_openrouter,
)

MESSAGES = [Message(role="user", content="a")]


def usage(**fields: object) -> Usage:
    return Usage(**{"input_tokens": 10, "output_tokens": 5} | fields)


# ------------------------------------------------------------------ the model


@pytest.mark.parametrize(
    "fields",
    [
        {"cost": 0.1},
        {"cost": "0.1"},
        {"cost": True},
        {"cost": Decimal("NaN")},
        {"cost": Decimal("sNaN")},
        {"cost": Decimal("Infinity")},
        {"cost": Decimal("-1E-9")},
        {"cost": Decimal("1000.000000001")},
        {"cost": Decimal("1E+999999")},
        {"cost": -(10**5000)},
        {"input_tokens": -1},
        {"input_tokens": 10**12 + 1},
        {"input_tokens": 10.0},
        {"output_tokens": True},
        {"requests": -1},
        {"model": 5},
        {"cached_input_tokens": 11},
        {"cached_input_tokens": 6, "cache_write_tokens": 5},
        {"cache_write_tokens": 11},
        {"reasoning_tokens": 6},
        {"total": 1},
    ],
)
def test_an_inconsistent_usage_is_rejected(fields):
    with pytest.raises(InvalidInput) as caught:
        usage(**fields)
    assert caught.value.field in fields or "cache_write_tokens" in fields


@pytest.mark.parametrize("cost", [1001, -1, 10**7, Decimal("NaN")])
def test_the_error_of_a_cost_names_its_range(cost):
    with pytest.raises(InvalidInput, match=r"cost: must be 0 to 1,000$"):
        usage(cost=cost)


def test_a_usage_at_its_limits_is_accepted():
    largest = usage(
        input_tokens=10**12,
        output_tokens=10**12,
        cached_input_tokens=10**12,
        reasoning_tokens=10**12,
        requests=10**12,
        cost=Decimal(1000),
    )
    assert largest.tokens == 2 * 10**12


@pytest.mark.parametrize(
    ("cost", "stored"),
    [
        ("0.0000000025", "0.000000002"),  # half to even
        ("0.0000000035", "0.000000004"),
        ("0.00000000250000000000000000000000000000000001", "0.000000003"),
        ("999.9999999995", "1000"),
        ("1E-400", "0"),
        ("-0", "0"),
        ("3.5E-7", "0.00000035"),
    ],
)
@pytest.mark.parametrize("precision", [3, 28])
def test_a_cost_is_rounded_half_even_to_nano_units(cost, stored, precision):
    with decimal.localcontext(prec=precision):
        rounded = usage(cost=Decimal(cost)).cost
    assert rounded == Decimal(stored)
    assert not rounded.is_signed()


def test_a_cost_in_json_is_a_plain_decimal_text():
    text = usage(cost=Decimal("3.5E-7")).model_dump_json()
    assert json.loads(text)["cost"] == "0.000000350"
    assert Usage.model_validate_json(text) == usage(cost=Decimal("3.5E-7"))
    for number in ("0.1", '"a"', f'"0.{"1" * 100}"'):
        with pytest.raises(InvalidInput):
            Usage.model_validate_json(
                f'{{"input_tokens": 1, "output_tokens": 1, "cost": {number}}}'
            )


def test_unknown_and_free_costs_differ():
    assert usage().cost is None
    assert usage(cost=Decimal(0)).cost == 0


def test_a_turn_takes_one_or_several_usages():
    two = [usage(), {"input_tokens": 1, "output_tokens": 2}]
    assert Turn(messages=MESSAGES, usage=usage()).usages == [usage()]
    assert Turn(messages=MESSAGES, usage=two).total_tokens == 18
    assert Turn(messages=MESSAGES, usage=tuple([usage()] * 32)).total_tokens == 480
    assert Turn(messages=MESSAGES, usage=[]) == Turn(messages=MESSAGES)
    assert Turn(messages=MESSAGES, tokens=7).total_tokens == 7


@pytest.mark.parametrize(
    "fields",
    [
        {"usage": usage(), "tokens": 1},
        {"usage": [usage()] * 33},
        {"usage": 5},
        {"usage": "a"},
        {"usage": [5]},
        {"usage": {"input_tokens": 1}},
        {"usage": [usage(), {"input_tokens": -1, "output_tokens": 1}]},
        {"user_id": 5},
    ],
)
def test_a_turn_rejects_a_wrong_usage(fields):
    with pytest.raises(InvalidInput):
        Turn(messages=MESSAGES, **fields)


def test_the_schema_of_a_turn_describes_its_usage():
    schema = TypeAdapter(Turn).json_schema()
    kinds = [each.get("type", "object") for each in schema["properties"]["usage"]["anyOf"]]
    assert kinds == ["object", "array", "null"]


def test_an_adjustment_has_signs():
    adjustment = UsageAdjustment(input_tokens=-10, output_tokens=4, cost=Decimal("-0.5"))
    assert (adjustment.tokens, adjustment.cost) == (-6, Decimal("-0.5"))
    for wrong in ({"cost": Decimal(-1_000_001)}, {"cost": 0.5}, {"rounds": -(10**12) - 1}):
        with pytest.raises(InvalidInput):
            UsageAdjustment(**wrong)


# ------------------------------------------------------------------ the answers of providers


class SDKObject(BaseModel):
    """An object as the SDKs build it: unknown fields are attributes too."""

    model_config = ConfigDict(extra="allow")


def sdk_object(value: object) -> object:
    if isinstance(value, dict):
        return SDKObject(**{name: sdk_object(each) for name, each in value.items()})
    return [sdk_object(each) for each in value] if isinstance(value, list) else value


OPENAI_CHAT = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "model": "gpt-5-2025-08-07",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi."}}],
    "usage": {
        "prompt_tokens": 2006,
        "completion_tokens": 300,
        "total_tokens": 2306,
        "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 192,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    },
}
OPENAI_RESPONSE = {
    "id": "resp_67ccd2bed1ec8190b14f964abc054267",
    "object": "response",
    "model": "gpt-5-2025-08-07",
    "usage": {
        "input_tokens": 3280,
        "input_tokens_details": {"cached_tokens": 2048, "cache_write_tokens": 1024},
        "output_tokens": 87,
        "output_tokens_details": {"reasoning_tokens": 64},
        "total_tokens": 3367,
    },
}
XAI_CHAT = {
    "model": "grok-4",
    "usage": {
        "prompt_tokens": 32,
        "completion_tokens": 9,
        "total_tokens": 135,
        "completion_tokens_details": {"reasoning_tokens": 94},
    },
}
EMBEDDINGS = {
    "object": "list",
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
ANTHROPIC_READ = {
    "id": "msg_013Zva2CMHLNnXjNJJKqJ2EF",
    "type": "message",
    "model": "claude-sonnet-4-5-20250929",
    "usage": {
        "input_tokens": 5,
        "cache_creation_input_tokens": 1253,
        "cache_read_input_tokens": 128955,
        "cache_creation": {"ephemeral_5m_input_tokens": 1253, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 310,
        "service_tier": "standard",
    },
}
ANTHROPIC_LIFETIMES = {
    "model": "claude-opus-4-8",
    "usage": {
        "input_tokens": 100,
        "cache_creation_input_tokens": None,
        "cache_read_input_tokens": None,
        "cache_creation": {"ephemeral_5m_input_tokens": 456, "ephemeral_1h_input_tokens": 100},
        "output_tokens": 503,
        "output_tokens_details": {"thinking_tokens": 400},
    },
}
ANTHROPIC_COMPACTION = {
    "model": "claude-opus-4-8",
    "usage": {
        "input_tokens": 23000,
        "output_tokens": 1000,
        "iterations": [
            {"type": "compaction", "input_tokens": 180000, "output_tokens": 3500},
            {"type": "message", "input_tokens": 23000, "output_tokens": 1000},
        ],
    },
}
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Hi."}]}}],
    "modelVersion": "gemini-2.5-flash",
    "usageMetadata": {
        "promptTokenCount": 4500,
        "cachedContentTokenCount": 4096,
        "candidatesTokenCount": 34,
        "thoughtsTokenCount": 1200,
        "toolUsePromptTokenCount": 250,
        "totalTokenCount": 5984,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 4500}],
    },
}
GEMINI_SDK = {
    "model_version": "gemini-2.5-flash",
    "usage_metadata": {
        "prompt_token_count": 4500,
        "cached_content_token_count": 4096,
        "candidates_token_count": 34,
        "thoughts_token_count": 1200,
        "tool_use_prompt_token_count": 250,
        "total_token_count": 5984,
        "traffic_type": None,
    },
}
BEDROCK = {
    "ResponseMetadata": {"HTTPStatusCode": 200},
    "stopReason": "end_turn",
    "usage": {
        "inputTokens": 12,
        "outputTokens": 80,
        "totalTokens": 2140,
        "cacheReadInputTokens": 1536,
        "cacheWriteInputTokens": 512,
        "cacheDetails": [{"ttl": "5m", "inputTokens": 512}],
    },
    "metrics": {"latencyMs": 1275},
}
OPENROUTER = {
    "object": "chat.completion.chunk",
    "model": "anthropic/claude-sonnet-4.5",
    "usage": {
        "prompt_tokens": 194,
        "completion_tokens": 2,
        "total_tokens": 196,
        "completion_tokens_details": {"reasoning_tokens": 0},
        "prompt_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 100},
        "cost": 0.00014265,
        "cost_details": {"upstream_inference_cost": None},
    },
}
GPT, OPUS, FLASH = "gpt-5-2025-08-07", "claude-opus-4-8", "gemini-2.5-flash"
LITELLM = {
    "id": "chatcmpl-7e1",
    "object": "chat.completion",
    "model": "claude-sonnet-4-5",
    "usage": {
        "completion_tokens": 12,
        "prompt_tokens": 130_213,
        "total_tokens": 130_225,
        "prompt_tokens_details": {"audio_tokens": None, "cached_tokens": 128_955},
        "cache_creation_input_tokens": 1_253,
        "cache_read_input_tokens": 128_955,
    },
}
RECORDED = [
    (usage_from_openai, OPENAI_CHAT, (2006, 300, 1920, 0, 192, 1, None, GPT)),
    (usage_from_openai, OPENAI_RESPONSE, (3280, 87, 2048, 1024, 64, 1, None, GPT)),
    (usage_from_openai, LITELLM, (130_213, 12, 128_955, 1_253, 0, 1, None, "claude-sonnet-4-5")),
    (usage_from_openai, XAI_CHAT, (32, 103, 0, 0, 94, 1, None, "grok-4")),
    (usage_from_openai, EMBEDDINGS, (8, 0, 0, 0, 0, 1, None, "text-embedding-3-small")),
    (
        usage_from_anthropic,
        ANTHROPIC_READ,
        (130213, 310, 128955, 1253, 0, 1, None, "claude-sonnet-4-5-20250929"),
    ),
    (usage_from_anthropic, ANTHROPIC_LIFETIMES, (656, 503, 0, 556, 400, 1, None, OPUS)),
    (usage_from_anthropic, ANTHROPIC_COMPACTION, (203000, 4500, 0, 0, 0, 2, None, OPUS)),
    (usage_from_gemini, GEMINI, (4750, 1234, 4096, 0, 1200, 1, None, FLASH)),
    (usage_from_gemini, GEMINI_SDK, (4750, 1234, 4096, 0, 1200, 1, None, FLASH)),
    (usage_from_bedrock, BEDROCK, (2060, 80, 1536, 512, 0, 1, None, None)),
    (usage_from_bedrock, {"metadata": BEDROCK}, (2060, 80, 1536, 512, 0, 1, None, None)),
    (
        usage_from_openrouter,
        OPENROUTER,
        (194, 2, 10, 100, 0, 1, Decimal("0.00014265"), "anthropic/claude-sonnet-4.5"),
    ),
]


@pytest.mark.parametrize("form", [dict, sdk_object])
@pytest.mark.parametrize(("function", "payload", "expected"), RECORDED)
def test_a_recorded_answer_is_mapped(function, payload, expected, form, caplog):
    mapped = function(form(payload))
    assert mapped == Usage(**dict(zip(Usage.model_fields, expected, strict=True)))
    assert caplog.records == []


def test_the_usage_alone_is_mapped_with_the_model_and_cost_of_the_caller():
    mapped = usage_from_openai(OPENAI_CHAT["usage"], model="openai/gpt-5", cost=Decimal("0.01"))
    assert (mapped.input_tokens, mapped.model, mapped.cost) == (
        *(2006, "openai/gpt-5"),
        Decimal("0.01"),
    )
    assert usage_from_gemini(GEMINI["usageMetadata"]).input_tokens == 4750
    assert usage_from_bedrock(BEDROCK["usage"], model="m").model == "m"


@pytest.mark.parametrize(
    "function",
    [
        *(usage_from_openai, usage_from_openrouter, usage_from_anthropic),
        *(usage_from_gemini, usage_from_bedrock),
    ],
)
@pytest.mark.parametrize("payload", [None, {}, {"usage": None}, "text", 5, SimpleNamespace(), []])
def test_an_answer_without_usage_is_none(function, payload, caplog):
    assert function(payload) is None
    assert caplog.records == []


def test_a_chunk_of_a_stream_before_the_usage_is_none():
    assert usage_from_openai({"object": "chat.completion.chunk", "usage": None}) is None


@pytest.mark.parametrize(
    ("function", "payload", "expected"),
    [
        (
            usage_from_openai,
            {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 9}},
            usage(input_tokens=5, output_tokens=0, cached_input_tokens=5),
        ),
        (
            usage_from_openai,
            {"prompt_tokens": -3, "completion_tokens": 10**20},
            usage(input_tokens=0, output_tokens=10**12),
        ),
        (
            usage_from_openai,
            {"prompt_tokens": "many", "completion_tokens": True},
            usage(input_tokens=0, output_tokens=0),
        ),
        (
            usage_from_openai,
            {
                "prompt_tokens": 4,
                "completion_tokens": 3,
                "completion_tokens_details": {"reasoning_tokens": 5},
            },
            usage(input_tokens=4, output_tokens=3, reasoning_tokens=3),
        ),
        (
            usage_from_openai,
            {
                "prompt_tokens": 4,
                "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 3},
            },
            usage(input_tokens=4, output_tokens=0, cached_input_tokens=3, cache_write_tokens=1),
        ),
        (
            usage_from_openai,
            {"usage": {"prompt_tokens": None, "completion_tokens": 3, "total_tokens": 20}},
            usage(input_tokens=0, output_tokens=3),
        ),
        (
            usage_from_openrouter,
            {"usage": {"cost": 0.25}},
            usage(input_tokens=0, output_tokens=0, cost=Decimal("0.25")),
        ),
        (
            usage_from_gemini,
            {"promptTokenCount": 4, "cachedContentTokenCount": 6, "candidatesTokenCount": 2},
            usage(input_tokens=4, output_tokens=2, cached_input_tokens=4),
        ),
        (
            usage_from_anthropic,
            {"input_tokens": 10**12, "cache_read_input_tokens": 5, "output_tokens": 1},
            usage(input_tokens=10**12, output_tokens=1, cached_input_tokens=5),
        ),
        *(
            (
                usage_from_openrouter,
                {"prompt_tokens": 4, "completion_tokens": 3, "cost": cost},
                usage(input_tokens=4, output_tokens=3),
            )
            for cost in (-1, 1001, float("nan"), float("inf"), "free", True, [1], 10**5000)
        ),
    ],
)
def test_an_inconsistent_answer_is_limited_with_a_warning(function, payload, expected, caplog):
    with caplog.at_level(logging.WARNING, logger="asyncsvc"):
        assert function(payload) == expected
    assert [record.levelname for record in caplog.records][:1] == ["WARNING"]


def test_a_usage_in_an_unknown_format_is_none_with_a_warning(caplog):
    assert usage_from_openai({"usage": GEMINI["usageMetadata"]}) is None
    assert len(caplog.records) == 1


def test_the_label_of_an_answer_is_storable():
    label = usage_from_openai(OPENAI_CHAT | {"model": "a\x00\ud800" + "b" * 300}).model
    assert label == "a��" + "b" * 197
    assert usage_from_openai(OPENAI_CHAT | {"model": 5}).model is None


def test_whole_floats_are_counts(caplog):
    assert usage_from_openai({"prompt_tokens": 8.0}).input_tokens == 8
    assert caplog.records == []


UNUSABLE = (-1, 10**20, "many", True, 1000.5, float("nan"), float("inf"), [1])


def paths(payload: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Return the path of each number of a payload."""
    items = payload.items() if isinstance(payload, dict) else enumerate(payload)
    for name, value in items:
        if isinstance(value, dict | list):
            yield from paths(value, (*path, name))
        elif isinstance(value, int | float):
            yield (*path, name)


@pytest.mark.parametrize("unusable", UNUSABLE, ids=str)
@pytest.mark.parametrize(("function", "payload"), [case[:2] for case in RECORDED])
def test_no_number_of_a_recorded_answer_loses_its_usage(function, payload, unusable, caplog):
    """Each number is replaced in turn: the usage is the same, or there is a warning."""
    recorded = function(payload)
    for *parents, name in paths(payload):
        damaged = copy.deepcopy(payload)
        functools.reduce(lambda part, key: part[key], parents, damaged)[name] = unusable
        caplog.clear()
        mapped = function(damaged)
        assert isinstance(mapped, Usage), (parents, name)
        assert mapped == recorded or caplog.records, (parents, name)
        assert Turn(messages=MESSAGES, usage=mapped).usages == [mapped]
