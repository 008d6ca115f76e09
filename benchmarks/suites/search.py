"""Each search first scans the newest conversations, which is its minimum cost.

For a common word the search ends there. A rare or absent word costs a few index lookups, each of
which reads the posting lists of the word's n-grams. Substrings of frequent n-grams take longest,
because the search reads each text that contains all of them. For absent words ILIKE reads all
messages of the tenant.

The text is generated, with word frequencies as in natural language. The suite compares each page,
hit and total of the random substrings with `str.find` over all messages. It also measures an append
in a database without the search indexes. Maintenance indexes the messages later.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

import asyncsvc
from asyncsvc import Message, Turn
from benchmarks import data
from benchmarks.bench import Bench, Point
from benchmarks.contenders.library import connect
from benchmarks.measuring import Work, agree, milliseconds
from benchmarks.server import connected, database, sql
from benchmarks.suites.reference_search import ReferenceSearch
from benchmarks.suites.text_generator import (
    MESSAGES_PER_CONVERSATION,
    OLD_WORD,
    PLANTED,
    TextGenerator,
)

PAGE = 20
ABSENT = ("zqabsent", "龘龘", "etaonone")
TOTAL_CAP = 10_000  # the maximum of a capped total
Search: TypeAlias = Callable[[str], Awaitable[Any]]
"""Find the newest conversations that contain the keywords."""


async def run(bench: Bench) -> None:
    """Measure words and random substrings, and the cost of the search for an append."""
    sizes = bench.choose((100, 200), (2_000, 20_000), (2_500, 25_000, 250_000))
    count, small = bench.choose((3, 20), (10, 250), (50, 250))
    patient = asyncsvc.Settings(statement_timeout=600.0, acquire_timeout=600.0)
    async with connect(bench.dsn, settings=patient) as svc:
        await svc.migrate()
        suite = _Suite(bench, svc, TextGenerator(1), f"s{sizes[-1]}")
        for number in range(count):  # the small tenants first
            await suite.write(f"small{number}", small)
        for size in sizes:
            await suite.write(f"s{size}", size)
        await suite.index()
        for size in sizes:
            await suite.words(size, is_largest=size == sizes[-1])
        await suite.small(count, small)
        await suite.substrings(bench.choose(60, 200, 800))
        await suite.newest(bench.choose(5, 50, 100))
    await suite.append_cost()


@dataclass(frozen=True)
class _Suite:
    bench: Bench
    svc: asyncsvc.AsyncSvc
    generator: TextGenerator
    largest: str
    """The largest tenant."""

    async def write(self, tenant: str, count: int) -> None:
        with self.bench.working(f"{_messages(count)} of {tenant}"):
            records = self.generator.conversations(tenant, count)
            await self.svc.conversations.import_(records, tenant_id=tenant)

    async def index(self) -> None:
        """Index all messages and titles with `maintain`."""
        began = time.perf_counter()
        with self.bench.working("maintain"):
            maintained = await self.svc.maintain()
        seconds, texts = time.perf_counter() - began, maintained.messages + maintained.titles
        async with connected(self.bench.dsn) as connection:
            await connection.execute("VACUUM ANALYZE")
            (sizes,) = await connection.fetch(sql("search_sizes"))
        counted = {
            "texts": texts,
            "microseconds each": round(1e6 * seconds / texts),
            "MiB of messages": round(sizes["messages"] / 2**20, 1),
            "MiB of the index": round(sizes["index"] / 2**20, 1),
        }
        self.bench.counts("indexed by maintenance", counted)

    async def words(self, size: int, *, is_largest: bool) -> None:
        """Measure common, rare and absent words for a tenant of this size."""
        tenant, title = f"s{size}", f"search of {_messages(size)}"
        async with connected(self.bench.dsn) as connection:
            by_ilike, search = _by_ilike(connection, tenant), self._search(tenant)
            for word in itertools.chain.from_iterable(self._kinds().values()):
                contenders: dict[str, Work] = {
                    "ILIKE": functools.partial(by_ilike, word),
                    "asyncsvc": functools.partial(search, word),
                }
                await agree(f"a search for {word}", contenders, data.ids)
            contenders = {"ILIKE, absent": _in_turn(by_ilike, ABSENT)}
            for kind, words in self._kinds().items():
                contenders[f"asyncsvc, {kind}"] = _in_turn(search, words)
            point = Point("search", size * MESSAGES_PER_CONVERSATION)
            by = await self.bench.contest(title, contenders, tasks=1, point=point)
        if is_largest:
            for kind, milliseconds_ in (("common", 6), ("absent", 20)):
                title = f"{kind} words among {_messages(size)}, ms p50"
                value = by[f"asyncsvc, {kind}"].latency(50)
                self.bench.target(title, value, at_most=milliseconds_)

    def _kinds(self) -> dict[str, Iterable[str]]:
        middle, rare, zh_middle, zh_rare = PLANTED
        return {
            "common": (*self.generator.common, "。"),
            "in one of 400": (middle, zh_middle),
            "in one of 20,000": (rare, zh_rare),
            "absent": ABSENT,
            "only in old messages": (OLD_WORD,),
        }

    async def small(self, count: int, size: int) -> None:
        """Measure the same words for the small tenants."""
        words = itertools.cycle(itertools.chain.from_iterable(self._kinds().values()))
        tenants = itertools.cycle(f"small{number}" for number in range(count))
        contenders = {"asyncsvc, all kinds": lambda: self._search(next(tenants))(next(words))}
        title = f"search at {count} tenants of {_messages(size)}"
        (measured,) = (await self.bench.contest(title, contenders, tasks=1)).values()
        self.bench.target(f"{title}, ms p99", measured.latency(99), at_most=10)

    async def substrings(self, count: int) -> None:
        """Measure random substrings, and compare each result with the reference search."""
        with self.bench.working("reading all messages"):
            reference = await ReferenceSearch.read(self.bench.dsn, self.largest)
        seconds, differing, search = list[float](), 0, self._search(self.largest)
        with self.bench.working(f"{count} substrings"):
            for _ in range(count):
                keywords = reference.substring(self.generator.chance)
                began = time.perf_counter()
                page = await search(keywords)
                seconds.append(time.perf_counter() - began)
                capped = await self.svc.conversations.search(
                    keywords, tenant_id=self.largest, limit=1, total="capped"
                )
                hits = [(hit.id, hit.seq) for hit in page.items]
                differing += hits != list(itertools.islice(reference.hits(keywords), PAGE))
                differing += capped.total != _count(reference.hits(keywords))
        title = f"{count} random substrings among {len(reference.places):,} messages"
        percents = {"p50": 50, "p90": 90, "p99": 99, "longest": 100}
        times = {f"ms {n}": round(milliseconds(seconds, p), 1) for n, p in percents.items()}
        self.bench.counts(title, {"different from the reference": differing} | times)
        target = self.bench.target
        target(f"{title}: different from the reference", differing, at_most=0)
        target(f"{title}, ms p50", milliseconds(seconds, 50), at_most=10)
        target(f"{title}, ms p99", milliseconds(seconds, 99), at_most=250)

    async def newest(self, count: int) -> None:
        """Search for the text of each append directly after the append."""
        chat = await self.svc.conversations.create(tenant_id=self.largest, dialog_id="d0")
        matched = 0
        for number in range(count):
            word = f"zqnew{number}x"
            turn = Turn(messages=[Message(role="user", content=f"{word}?")])
            await self.svc.conversations.append_message(chat.id, turn, tenant_id=self.largest)
            page = await self._search(self.largest)(word)
            matched += [hit.id for hit in page.items] == [chat.id]
        title = f"of {count} appends, found by the next search"
        self.bench.target(title, matched, at_least=count)

    async def append_cost(self) -> None:
        """Measure an append with and without the search indexes."""
        async with database(self.bench.dsn) as bare, contextlib.AsyncExitStack() as stack:
            contenders = {}
            for name, dsn in (("without search", bare), ("asyncsvc", self.bench.dsn)):
                opened = connect(dsn, max_size=1)
                contenders[name] = await self._append(await stack.enter_async_context(opened))
            async with connected(bare) as connection:
                await connection.execute(sql("without_search"))
            title = "append a message of generated text"
            by = await self.bench.contest(title, contenders, tasks=1)
        cost = by["asyncsvc"].cost(by["without search"])
        self.bench.target("append with search, against without", cost, at_most=1.1)

    async def _append(self, svc: asyncsvc.AsyncSvc) -> Work:
        await svc.migrate()
        chat = await svc.conversations.create(tenant_id="appends", dialog_id="d0")

        async def append() -> None:
            turn = Turn(messages=[Message(role="user", content=self.generator.message())])
            await svc.conversations.append_message(chat.id, turn, tenant_id="appends")

        return append

    def _search(self, tenant_id: str) -> Search:
        return functools.partial(self.svc.conversations.search, tenant_id=tenant_id, limit=PAGE)


def _messages(conversations: int) -> str:
    return f"{conversations * MESSAGES_PER_CONVERSATION:,} messages"


def _by_ilike(connection: asyncpg.Connection, tenant_id: str) -> Search:
    return lambda keywords: connection.fetch(sql("search_by_ilike"), tenant_id, keywords, PAGE)


def _in_turn(search: Search, words: Iterable[str]) -> Work:
    turn = itertools.cycle(words)
    return lambda: search(next(turn))


def _count(hits: Iterator[object]) -> int:
    return sum(1 for _ in itertools.islice(hits, TOTAL_CAP))
