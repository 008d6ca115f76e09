"""Search: common, rare and absent words and random substrings, and the cost for an append.

`text_generator` generates the text. The suite compares each page, hit and total of random
substrings with `reference_search`.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

import asyncsvc
from asyncsvc import Message, Turn
from benchmarks import text_generator
from benchmarks.append_contenders import PATIENT
from benchmarks.contest import EFFORTS, ContestRunner, Effort, spelled
from benchmarks.measuring import Contender, Measured, Work, agree
from benchmarks.reference_search import ReferenceSearch
from benchmarks.report import Place, Report
from benchmarks.server import connected, database
from benchmarks.statements import sql
from benchmarks.text_generator import MESSAGES_PER_CONVERSATION, OLD_WORD, TextGenerator

PAGE = 20
ABSENT = ("zqabsent", "龘龘", "etaonone")
TOTAL_CAP = 10_000  # the maximum of a capped total
TENANT = "appends"

Search: TypeAlias = Callable[[str], Awaitable[Any]]
"""Find the newest conversations that contain the keywords."""


@dataclass(frozen=True)
class Scale:
    """How much is written and searched."""

    sizes: tuple[int, ...]
    """The number of conversations of each large tenant, of 8 messages each."""
    small_tenants: int
    """The number of small tenants."""
    small_size: int
    """The number of conversations of each small tenant."""
    substrings: int
    appends: int
    effort: Effort


SCALES = {
    "small": Scale((100, 200), 3, 20, 60, 5, EFFORTS["small"]),
    "middle": Scale((2_000, 20_000), 10, 250, 200, 50, EFFORTS["middle"]),
    "full": Scale((2_500, 25_000, 250_000), 50, 250, 800, 100, EFFORTS["full"]),
}


async def run(dsn: str, scale: str, report: Report) -> None:
    """Measure, and add the tables to the report."""
    how = SCALES[scale]
    async with asyncsvc.connect(dsn, settings=PATIENT) as svc:
        await svc.migrate()
        suite = Suite(ContestRunner(dsn, report, how.effort), svc, TextGenerator(1), how)
        await suite.write()
        await suite.index()
        for size in how.sizes:
            await suite.words(size)
        await suite.small()
        await suite.substrings()
        await suite.newest()
    await suite.price()


@dataclass(frozen=True)
class Suite:
    """The contests."""

    runner: ContestRunner
    svc: asyncsvc.AsyncSvc
    generator: TextGenerator
    how: Scale

    @property
    def largest(self) -> str:
        """The largest tenant."""
        return _tenant(self.how.sizes[-1])

    async def write(self) -> None:
        """Store all tenants, the small ones first."""
        how = self.how
        tenants = {f"small{number}": how.small_size for number in range(how.small_tenants)}
        tenants |= {_tenant(size): size for size in how.sizes}
        for name, count in tenants.items():
            with self.runner.report.working(f"{_messages(count)} of {name}"):
                await self.svc.conversations.import_(
                    self.generator.conversations(name, count), tenant_id=name
                )

    async def index(self) -> None:
        """Index all messages and titles with `maintain`."""
        began = time.perf_counter()
        with self.runner.report.working("maintain"):
            maintained = await self.svc.maintain()
        seconds, texts = time.perf_counter() - began, maintained.messages + maintained.titles
        async with connected(self.runner.dsn) as connection:
            await connection.execute("VACUUM ANALYZE")
            sizes = await connection.fetchrow(sql("search_sizes"))
        assert sizes is not None  # noqa: S101
        self.runner.report.add_counts(
            "indexed by maintenance",
            {
                "texts": texts,
                "microseconds each": round(1e6 * seconds / texts),
                "MiB of messages": round(sizes["messages"] / 2**20, 1),
                "MiB of the index": round(sizes["index"] / 2**20, 1),
            },
        )

    async def words(self, size: int) -> None:
        """Measure common, rare and absent words for a tenant of this size."""
        tenant, target = _tenant(size), self.runner.report.target
        async with connected(self.runner.dsn) as connection:
            await self._agree(tenant, connection)
            contenders = [
                Contender("ILIKE, absent", [_in_turn(_by_ilike(connection, tenant), ABSENT)]),
                *(
                    Contender(f"asyncsvc, {kind}", [_in_turn(self._search(tenant), words)])
                    for kind, words in self._kinds().items()
                ),
            ]
            title = f"search of {_messages(size)}, {spelled(1)}"
            place = Place("search", size * MESSAGES_PER_CONVERSATION)
            measured = await self.runner.contest(title, contenders, place=place)
        by = {each.name: each for each in measured}
        if size == self.how.sizes[-1]:
            where = f"among {_messages(size)}, ms p50"
            target(f"common words {where}", by["asyncsvc, common"].latency(50), maximum=6)
            target(f"absent words {where}", by["asyncsvc, absent"].latency(50), maximum=20)

    def _kinds(self) -> dict[str, Sequence[str]]:
        middle, rare, zh_middle, zh_rare = text_generator.PLANTED
        return {
            "common": (*self.generator.common, "。"),
            "in one of 400": (middle, zh_middle),
            "in one of 20,000": (rare, zh_rare),
            "absent": ABSENT,
            "only in old messages": (OLD_WORD,),
        }

    async def _agree(self, tenant: str, connection: asyncpg.Connection) -> None:
        for word in itertools.chain.from_iterable(self._kinds().values()):

            async def by_library(word: str = word) -> object:
                return [hit.id for hit in (await self._search(tenant)(word)).items]

            async def by_ilike(word: str = word) -> object:
                return [row["id"] for row in await _by_ilike(connection, tenant)(word)]

            await agree(f"a search for {word}", {"ILIKE": by_ilike, "asyncsvc": by_library})

    async def small(self) -> None:
        """Measure the same words for the small tenants."""
        how = self.how
        words = itertools.cycle(itertools.chain.from_iterable(self._kinds().values()))
        tenants = itertools.cycle(f"small{number}" for number in range(how.small_tenants))

        async def search() -> None:
            await self._search(next(tenants))(next(words))

        title = f"search at {how.small_tenants} tenants of {_messages(how.small_size)}"
        (measured,) = await self.runner.contest(
            f"{title}, {spelled(1)}", [Contender("asyncsvc, all kinds", [search])]
        )
        self.runner.report.target(f"{title}, ms p99", measured.latency(99), maximum=10)

    async def substrings(self) -> None:
        """Measure random substrings, and compare each result with the reference search."""
        report, count = self.runner.report, self.how.substrings
        with report.working("reading all messages"):
            reference = await ReferenceSearch.read(self.runner.dsn, self.largest)
        taken, differing = Measured("random substrings"), 0
        with report.working(f"{count} substrings"):
            for _ in range(count):
                keywords = self._part(reference)
                began = time.perf_counter()
                page = await self._search(self.largest)(keywords)
                taken.seconds.append(time.perf_counter() - began)
                hits = [(hit.id, hit.seq) for hit in page.items]
                differing += hits != list(itertools.islice(reference.hits(keywords), PAGE))
                differing += await self._total(keywords) != _counted(reference, keywords)
        title = f"{count} random substrings among {len(reference.places):,} messages"
        report.add_counts(title, {"different from the reference": differing} | _milliseconds(taken))
        report.target(f"{title}: different from the reference", differing, maximum=0)
        report.target(f"{title}, ms p50", taken.latency(50), maximum=10)
        report.target(f"{title}, ms p99", taken.latency(99), maximum=250)

    def _part(self, reference: ReferenceSearch) -> str:
        """Return 1 to 12 consecutive characters of a message."""
        chance = self.generator.chance
        while True:
            begin = chance.randrange(len(reference.text))
            part = reference.text[begin : begin + chance.randint(1, 12)]
            if part and "\0" not in part:
                return part

    async def _total(self, keywords: str) -> int | None:
        page = await self.svc.conversations.search(
            tenant_id=self.largest, keywords=keywords, limit=1, total="capped"
        )
        return page.total

    async def newest(self) -> None:
        """Search for the text of each append directly after the append."""
        chat = await self.svc.conversations.create(tenant_id=self.largest, dialog_id="d0")
        matched = 0
        for number in range(self.how.appends):
            word = f"zqnew{number}x"
            turn = Turn(messages=[Message(role="user", content=f"{word}?")])
            await self.svc.conversations.append_message(chat.id, turn, tenant_id=self.largest)
            page = await self._search(self.largest)(word)
            matched += [hit.id for hit in page.items] == [chat.id]
        title = f"of {self.how.appends} appends, found by the next search"
        self.runner.report.target(title, matched, minimum=self.how.appends)

    async def price(self) -> None:
        """Measure an append with and without the search indexes."""
        async with self._without_search() as bare, contextlib.AsyncExitStack() as stack:
            contenders = []
            for name, dsn in (("without search", bare), ("asyncsvc", self.runner.dsn)):
                svc = await stack.enter_async_context(asyncsvc.connect(dsn, max_size=1))
                contenders.append(Contender(name, [await self._append(svc)]))
            title = f"append a message of generated text, {spelled(1)}"
            without, own = await self.runner.contest(title, contenders)
        self.runner.report.target(
            "append with search, against without", own.cost(without), maximum=1.1
        )

    @contextlib.asynccontextmanager
    async def _without_search(self) -> AsyncIterator[str]:
        """Yield a database without the search indexes."""
        async with database(self.runner.dsn) as dsn:
            async with asyncsvc.connect(dsn) as svc:
                await svc.migrate()
            async with connected(dsn) as connection:
                await connection.execute(sql("without_search"))
            yield dsn

    async def _append(self, svc: asyncsvc.AsyncSvc) -> Work:
        chat = await svc.conversations.create(tenant_id=TENANT, dialog_id="d0")

        async def append() -> None:
            turn = Turn(messages=[Message(role="user", content=self.generator.message())])
            await svc.conversations.append_message(chat.id, turn, tenant_id=TENANT)

        return append

    def _search(self, tenant_id: str) -> Search:
        return lambda keywords: self.svc.conversations.search(
            tenant_id=tenant_id, keywords=keywords, limit=PAGE
        )


def _tenant(size: int) -> str:
    return f"s{size}"


def _messages(conversations: int) -> str:
    return f"{conversations * MESSAGES_PER_CONVERSATION:,} messages"


def _by_ilike(connection: asyncpg.Connection, tenant_id: str) -> Search:
    return lambda keywords: connection.fetch(sql("search_by_ilike"), tenant_id, keywords, PAGE)


def _in_turn(search: Search, words: Sequence[str]) -> Work:
    turn = itertools.cycle(words)
    return lambda: search(next(turn))


def _counted(reference: ReferenceSearch, keywords: str) -> int:
    return sum(1 for _ in itertools.islice(reference.hits(keywords), TOTAL_CAP))


def _milliseconds(taken: Measured) -> dict[str, float]:
    named = {"p50": 50, "p90": 90, "p99": 99, "longest": 100}
    return {f"ms {name}": round(taken.latency(percent), 1) for name, percent in named.items()}
