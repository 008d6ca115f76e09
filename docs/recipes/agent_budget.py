"""Run a loop of an agent that checks the budgets before each call of a model."""

import asyncio
import os
from decimal import Decimal

import asyncsvc
from asyncsvc import BudgetExceeded, Message, Turn, Usage

DSN = os.environ["ASYNCSVC_DSN"]


async def call_model(question: str) -> tuple[str, Usage]:
    """Stand for a model: an answer, and its usage with the cost."""
    usage = Usage(input_tokens=1_800, output_tokens=90, cost=Decimal("0.004"), model="openai/gpt-5")
    return f"searched for {question}", usage


async def answer(svc: asyncsvc.AsyncSvc, id: str, question: str, *, user_id: str) -> str:
    """Answer in at most 10 calls, and store what was paid for, also when a budget is spent."""
    messages = [Message(role="user", content=question)]
    usages: list[Usage] = []
    for _ in range(10):
        try:
            await svc.budgets.check(tenant_id="acme", user_id=user_id, dialog_id="support")
        except BudgetExceeded as error:
            messages.append(Message(role="assistant", content=f"The {error.metric} is spent."))
            break
        text, usage = await call_model(question)
        messages.append(Message(role="tool", content=text))
        # A budget counts stored usage, so each call is recorded before the next check.
        await svc.conversations.record_usage(
            usage, tenant_id="acme", conversation_id=id, user_id=user_id
        )
        usages.append(usage)
    turn = Turn(
        messages=messages,
        user_id=user_id,
        usage=Usage(input_tokens=0, output_tokens=0, requests=0, cost=Decimal(0)),
    )
    await svc.conversations.append_message(id, turn, tenant_id="acme")
    return f"{len(usages)} calls: {messages[-1].content}"


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        await svc.budgets.set(
            tenant_id="acme", scope="user", limit=Decimal("0.01"), window="day", tz="Europe/Berlin"
        )
        chat = await svc.conversations.create(tenant_id="acme", dialog_id="support", user_id="ann")
        print(await answer(svc, chat.id, "parcels", user_id="ann"))
        # > 3 calls: The cost is spent.
        (budget,) = await svc.budgets.status(tenant_id="acme", user_id="ann")
        print(budget.used, budget.limit, budget.remaining)
        # > 0.012 0.01 0


if __name__ == "__main__":
    asyncio.run(main())
