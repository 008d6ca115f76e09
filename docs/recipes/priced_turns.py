"""Price the answers of language models with genai-prices, and book the costs with their turns."""

import asyncio
import os
from collections.abc import Mapping
from decimal import Decimal

import genai_prices

import asyncsvc
from asyncsvc import Message, Turn, Usage
from asyncsvc.metering import usage_from_anthropic

DSN = os.environ["ASYNCSVC_DSN"]
ANSWER: dict[str, object] = {  # of client.messages.create(...)
    "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "In Vienna."}],
    "usage": {
        "input_tokens": 5,
        "cache_read_input_tokens": 128_955,
        "cache_creation_input_tokens": 1_253,
        "output_tokens": 310,
    },
}


def price(usage: Usage | None, provider: str) -> Decimal | None:
    """Return the cost in US dollars; None for a model without a known price."""
    if usage is None or usage.model is None:
        return None
    counts = genai_prices.Usage(
        input_tokens=usage.input_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
    )
    try:
        return genai_prices.calc_price(counts, usage.model, provider_id=provider).total_price
    except LookupError:
        return None


def priced(answer: Mapping[str, object]) -> Usage | None:
    """Return the usage of an answer with its cost."""
    cost = price(usage_from_anthropic(answer), "anthropic")
    return usage_from_anthropic(answer, cost=cost)


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support")
        for answer in (ANSWER, ANSWER | {"model": "private-model-1"}):
            usage = priced(answer)
            print(usage and (usage.input_tokens, usage.cost))
            # > (130213, Decimal('0.048050250'))
            # > (130213, None)
            await svc.conversations.append_message(
                chat.id,
                Turn(messages=[Message(role="assistant", content="In Vienna.")], usage=usage),
                tenant_id="acme",
            )


if __name__ == "__main__":
    asyncio.run(main())
