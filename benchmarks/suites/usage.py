"""An append stores its usage in the same statement, and neither reads nor writes a budget.

An append with one `Usage` is compared with an append that knows only its total of tokens. The
tenant with budgets has 8 of them, of 4 scopes and 2 metrics. The last table counts how far 64
concurrent tasks overspend one budget: each checks the budget, waits and appends.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from decimal import Decimal

import asyncsvc
from asyncsvc import BudgetExceeded, Message, Turn, Usage
from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.data import Tenant
from benchmarks.measuring import Work

MESSAGES = [Message(role="assistant", content=data.MESSAGES[1]["content"])]
TOTAL = Turn(messages=MESSAGES, tokens=1_280)
USAGE = Turn(
    messages=MESSAGES,
    usage=Usage(
        input_tokens=1_200,
        output_tokens=80,
        cached_input_tokens=1_024,
        cost=Decimal("0.000975"),
        model="openai/gpt-5",
    ),
)
SPENDERS = 64
_WAIT = 0.005


async def run(bench: Bench) -> None:
    """Measure appends with usage and with budgets, and count the overspending."""
    count = bench.choose(20, 1_000, 5_000)
    plain, budgeted = data.of_length(10, count), data.of_length(11, count)
    async with connect(bench.dsn, max_size=bench.tasks) as svc:
        await svc.migrate()
        for tenant in (plain, budgeted):
            await data.fill(bench, tenant, "asyncsvc")
        for scope in ("tenant", "token", "user", "dialog"):
            for metric in ("cost", "tokens"):
                await svc.budgets.set(
                    tenant_id=budgeted.name, scope=scope, metric=metric, limit=10**9
                )
        suite = _Suite(bench, svc, plain, budgeted)
        await suite.usage()
        await suite.budgets()
        await suite.overspending()


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    svc: asyncsvc.AsyncSvc
    plain: Tenant
    budgeted: Tenant

    async def usage(self) -> None:
        contenders = {
            "total of tokens": self._append(self.plain, TOTAL),
            "one Usage": self._append(self.plain, USAGE),
        }
        title = "an append of 1 message with usage"
        by = await self.bench.contest(title, contenders, tasks=1)
        cost = by["one Usage"].cost(by["total of tokens"])
        self.bench.target(f"{title}, against a total of tokens, time", cost, at_most=1.05)

    async def budgets(self) -> None:
        contenders = {
            "without budgets": self._append(self.plain, USAGE),
            "8 budgets": self._append(self.budgeted, USAGE),
        }
        title = "appends of a tenant with budgets"
        by = await self.bench.contest(title, contenders, tasks=self.bench.tasks)
        rate = by["8 budgets"].ratio(by["without budgets"])
        self.bench.target(f"{title}, rate against none", rate, at_least=0.95)

    async def overspending(self) -> None:
        """Let 64 tasks spend one budget at once."""
        name, limit = self.budgeted.name, self.bench.choose(20, 500, 2_000)
        appended = 0
        await self.svc.budgets.set(
            tenant_id=name, scope="user", subject="spender", metric="rounds", limit=limit
        )
        turn = USAGE.model_copy(update={"user_id": "spender"})

        async def spend() -> None:
            nonlocal appended
            append = self._append(self.budgeted, turn)
            while True:
                try:
                    await self.svc.budgets.check(tenant_id=name, user_id="spender")
                except BudgetExceeded:
                    return
                await asyncio.sleep(_WAIT)
                await append()
                appended += 1

        with self.bench.working(f"{SPENDERS} tasks spend a budget"):
            await asyncio.gather(*(spend() for _ in range(SPENDERS)))
        (status,) = (
            each
            for each in await self.svc.budgets.status(tenant_id=name, user_id="spender")
            if each.metric == "rounds"
        )
        title = f"{SPENDERS} tasks spend a budget of {limit:,} turns"
        counted = {"appended": appended, "used": int(status.used), "above": appended - limit}
        self.bench.counts(title, counted)
        self.bench.target(f"{title}, turns above it", appended - limit, at_most=SPENDERS)

    def _append(self, tenant: Tenant, turn: Turn) -> Work:
        return lambda: self.svc.conversations.append_message(
            random.choice(tenant.ids),  # noqa: S311
            turn,
            tenant_id=tenant.name,
        )
