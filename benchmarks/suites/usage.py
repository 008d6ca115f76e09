"""An append stores its usage in the same statement, and neither reads nor writes a budget.

An append with one `Usage` is compared with an append that knows only its total of tokens. The
tenant with budgets has 8 of them, of 4 scopes and 2 metrics. A verification with budgets reads the
usage since the last roll-up; the tenants of these tables have the first 0, 1, 4 and 8 budgets. The
last table counts how far 64 concurrent tasks overspend one budget: each checks the budget, waits
and appends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import asyncsvc
from asyncsvc import BudgetExceeded, Message, Turn, Usage
from asyncsvc.validation.types import BudgetMetric, BudgetScope
from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.contenders.library import connect
from benchmarks.data import Tenant
from benchmarks.measuring import Work
from benchmarks.server import connected, sql

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
METRICS: tuple[BudgetMetric, ...] = ("cost", "tokens")
SCOPES: tuple[BudgetScope, ...] = ("tenant", "token", "user", "dialog")
BUDGETS = [(metric, scope) for metric in METRICS for scope in SCOPES]
NUMBERS_OF_BUDGETS = (0, 1, 4, 8)
SPENDERS = 64
_WAIT = 0.005
_FEW_ROWS = 100
_MANY_ROWS = 6_000


async def run(bench: Bench) -> None:
    """Measure appends with usage and with budgets, and count the overspending."""
    count = bench.choose(20, 1_000, 5_000)
    plain, budgeted = data.of_length(10, count), data.of_length(11, count)
    async with connect(bench.dsn, max_size=bench.tasks) as svc:
        await svc.migrate()
        for tenant in (plain, budgeted):
            await data.fill(bench, tenant, "asyncsvc")
        await _set_budgets(svc, budgeted.name, len(BUDGETS))
        suite = _Suite(bench, svc, plain, budgeted)
        await suite.usage()
        await suite.budgets()
        await suite.verifications()
        await suite.overspending()


async def _set_budgets(svc: asyncsvc.AsyncSvc, tenant_id: str, number: int) -> None:
    for metric, scope in BUDGETS[:number]:
        await svc.budgets.set(tenant_id=tenant_id, scope=scope, metric=metric, limit=10**9)


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

    async def verifications(self) -> None:
        """Verify tokens of tenants with budgets, at several sizes of their ledgers."""
        tokens = dict[int, asyncsvc.IssuedToken]()
        for number in NUMBERS_OF_BUDGETS:
            name = f"with {number} budgets"
            tokens[number] = await self.svc.tokens.create(tenant_id=name, name="benchmark")
            await _set_budgets(self.svc, name, number)
        stored = 0
        for rows in (self.bench.choose(size // 100, size, size) for size in (100, 6_000, 100_000)):
            async with connected(self.bench.dsn) as connection:
                for number, token in tokens.items():
                    values = (f"with {number} budgets", rows - stored, token.token.id)
                    await connection.execute(sql("fill_ledger"), *values)
                await connection.execute("VACUUM ANALYZE asyncsvc.usage_ledger")
            stored = rows
            await self._verify(tokens, rows)

    async def _verify(self, tokens: Mapping[int, asyncsvc.IssuedToken], rows: int) -> None:
        def verify(number: int) -> Work:
            secret = tokens[number].secret
            return lambda: self.svc.tokens.verify(
                secret, budgets=True, user_id="u7", dialog_id="d3"
            )

        contenders: dict[str, Work] = {
            "verify": lambda: self.svc.tokens.verify(tokens[0].secret),
            **{f"{number} budgets": verify(number) for number in tokens},
        }
        title = f"verify with budgets, {rows:,} rows in the ledger"
        by = await self.bench.contest(title, contenders, tasks=1)
        for number in tokens:
            name = f"{number} budgets"
            if rows <= _FEW_ROWS:
                cost = by[name].cost(by["verify"])
                self.bench.target(f"{title}, {name} against none, time", cost, at_most=1.3)
            elif rows <= _MANY_ROWS:
                p50 = by[name].latency(50)
                self.bench.target(f"{title}, {name}, p50 ms", p50, at_most=3)

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
