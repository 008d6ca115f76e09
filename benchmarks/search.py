"""Search: any substring, beside ILIKE and a plain find, and what an append pays for it.

The text is `language`'s. Each page, hit and total of random substrings is held against `plainly`'s.
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
from benchmarks import language
from benchmarks.appending import PATIENT
from benchmarks.language import EACH, STALE, Language
from benchmarks.measuring import Contender, Measured, Work, agree
from benchmarks.plainly import Plain
from benchmarks.report import Place, Report
from benchmarks.server import connected, database
from benchmarks.stage import EFFORTS, Effort, Stage, spelled
from benchmarks.statements import sql

PAGE = 20
ABSENT = ("zqabsent", "龘龘", "etaonone")
TOTAL_CAP = 10_000  # what a capped total counts to
TENANT = "appending"

Search: TypeAlias = Callable[[str], Awaitable[Any]]
"""Finds the newest conversations that hold the keywords."""


@dataclass(frozen=True)
class Scale:
    """How much is written and searched."""

    sizes: tuple[int, ...]
    """The conversations of each tenant, of eight messages each."""
    small: int
    """How many small tenants there are beside them."""
    theirs: int
    """The conversations of each of those."""
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
        suite = Suite(Stage(dsn, report, how.effort), svc, Language(1), how)
        await suite.write()
        await suite.fold()
        for size in how.sizes:
            await suite.words(size)
        await suite.small()
        await suite.substrings()
        await suite.newest()
    await suite.price()


@dataclass(frozen=True)
class Suite:
    """The contests."""

    stage: Stage
    svc: asyncsvc.AsyncSvc
    language: Language
    how: Scale

    @property
    def largest(self) -> str:
        """The tenant with the most messages."""
        return _tenant(self.how.sizes[-1])

    async def write(self) -> None:
        """Store all tenants, the small ones first."""
        tenants = {f"small{number}": self.how.theirs for number in range(self.how.small)}
        tenants |= {_tenant(size): size for size in self.how.sizes}
        for name, count in tenants.items():
            with self.stage.report.working(f"{count * EACH:,} messages of {name}"):
                await self.svc.conversations.import_(
                    self.language.conversations(name, count), tenant_id=name
                )

    async def fold(self) -> None:
        """Have maintenance put all of it into the index."""
        began = time.perf_counter()
        with self.stage.report.working("maintain"):
            folded = await self.svc.maintain()
        seconds, texts = time.perf_counter() - began, folded.messages + folded.titles
        async with connected(self.stage.dsn) as connection:
            await connection.execute("VACUUM ANALYZE")
            sizes = await connection.fetchrow(sql("search_sizes"))
        assert sizes is not None  # noqa: S101
        self.stage.report.note(
            "put into the index",
            {
                "texts": texts,
                "microseconds each": round(1e6 * seconds / texts),
                "MiB of messages": round(sizes["messages"] / 2**20, 1),
                "MiB of the index": round(sizes["index"] / 2**20, 1),
            },
        )

    async def words(self, size: int) -> None:
        """Words that are common, rare and nowhere, at a tenant of this size."""
        tenant, target = _tenant(size), self.stage.report.target
        async with connected(self.stage.dsn) as connection:
            await self._agree(tenant, connection)
            contenders = [
                Contender("ILIKE, absent", [_in_turn(_by_ilike(connection, tenant), ABSENT)]),
                *(
                    Contender(f"asyncsvc, {kind}", [_in_turn(self._search(tenant), words)])
                    for kind, words in self._kinds().items()
                ),
            ]
            title = f"search of {size * EACH:,} messages, {spelled(1)}"
            place = Place("search", size * EACH)
            measured = await self.stage.contest(title, contenders, place=place)
        by = {each.name: each for each in measured}
        if size == self.how.sizes[-1]:
            where = f"among {size * EACH:,} messages, ms p50"
            target(f"common words {where}", by["asyncsvc, common"].latency(50), most=6)
            target(f"absent words {where}", by["asyncsvc, absent"].latency(50), most=20)

    def _kinds(self) -> dict[str, Sequence[str]]:
        middle, rare, zh_middle, zh_rare = language.PLANTED
        return {
            "common": (*self.language.common, "。"),
            "in one of 400": (middle, zh_middle),
            "in one of 20,000": (rare, zh_rare),
            "absent": ABSENT,
            "only far back": (STALE,),
        }

    async def _agree(self, tenant: str, connection: asyncpg.Connection) -> None:
        for word in itertools.chain.from_iterable(self._kinds().values()):

            async def by_library(word: str = word) -> object:
                return [hit.id for hit in (await self._search(tenant)(word)).items]

            async def by_ilike(word: str = word) -> object:
                return [row["id"] for row in await _by_ilike(connection, tenant)(word)]

            await agree(f"a search for {word}", {"ILIKE": by_ilike, "asyncsvc": by_library})

    async def small(self) -> None:
        """The same words at small tenants, beside the large ones."""
        words = itertools.cycle(itertools.chain.from_iterable(self._kinds().values()))
        tenants = itertools.cycle(f"small{number}" for number in range(self.how.small))

        async def search() -> None:
            await self._search(next(tenants))(next(words))

        title = f"search at {self.how.small} tenants of {self.how.theirs * EACH:,} messages"
        (measured,) = await self.stage.contest(
            f"{title}, {spelled(1)}", [Contender("asyncsvc, all kinds", [search])]
        )
        self.stage.report.target(f"{title}, ms p99", measured.latency(99), most=10)

    async def substrings(self) -> None:
        """Random substrings: each page, each hit and each total as a plain find has them."""
        report, count = self.stage.report, self.how.substrings
        with report.working("reading all messages"):
            plain = await Plain.read(self.stage.dsn, self.largest)
        taken, differing = Measured("random substrings"), 0
        with report.working(f"{count} substrings"):
            for _ in range(count):
                keywords = self._part(plain)
                began = time.perf_counter()
                page = await self._search(self.largest)(keywords)
                taken.seconds.append(time.perf_counter() - began)
                found = [(hit.id, hit.seq) for hit in page.items]
                differing += found != list(itertools.islice(plain.hits(keywords), PAGE))
                differing += await self._total(keywords) != _counted(plain, keywords)
        title = f"{count} random substrings among {len(plain.places):,} messages"
        report.note(title, {"differing from a plain find": differing} | _milliseconds(taken))
        report.target(f"{title}: differing from a plain find", differing, most=0)
        report.target(f"{title}, ms p50", taken.latency(50), most=10)
        report.target(f"{title}, ms p99", taken.latency(99), most=250)

    def _part(self, plain: Plain) -> str:
        """Take 1 to 12 characters from within a message."""
        chance = self.language.chance
        while True:
            begin = chance.randrange(len(plain.text))
            part = plain.text[begin : begin + chance.randint(1, 12)]
            if part and "\0" not in part:
                return part

    async def _total(self, keywords: str) -> int | None:
        page = await self.svc.conversations.search(self.largest, keywords, limit=1, total="capped")
        return page.total

    async def newest(self) -> None:
        """What an append wrote, looked for as soon as it is done."""
        chat = await self.svc.conversations.create(tenant_id=self.largest, dialog_id="d0")
        found = 0
        for number in range(self.how.appends):
            word = f"zqnew{number}x"
            turn = Turn(messages=[Message(role="user", content=f"{word}?")])
            await self.svc.conversations.append_message(chat.id, turn, tenant_id=self.largest)
            page = await self._search(self.largest)(word)
            found += [hit.id for hit in page.items] == [chat.id]
        title = f"of {self.how.appends} appends, found by the next search"
        self.stage.report.target(title, found, least=self.how.appends)

    async def price(self) -> None:
        """Append where there is a search, and where an append keeps nothing for it."""
        async with self._without_search() as bare, contextlib.AsyncExitStack() as stack:
            contenders = []
            for name, dsn in (("without search", bare), ("asyncsvc", self.stage.dsn)):
                svc = await stack.enter_async_context(asyncsvc.connect(dsn, max_size=1))
                contenders.append(Contender(name, [await self._append(svc)]))
            title = f"append a message of invented text, {spelled(1)}"
            without, own = await self.stage.contest(title, contenders)
        self.stage.report.target("append with search, against without", own.cost(without), most=1.1)

    @contextlib.asynccontextmanager
    async def _without_search(self) -> AsyncIterator[str]:
        """Lend a database without what searches need."""
        async with database(self.stage.dsn) as dsn:
            async with asyncsvc.connect(dsn) as svc:
                await svc.migrate()
            async with connected(dsn) as connection:
                await connection.execute(sql("without_search"))
            yield dsn

    async def _append(self, svc: asyncsvc.AsyncSvc) -> Work:
        chat = await svc.conversations.create(tenant_id=TENANT, dialog_id="d0")
        said = self.language.message

        async def append() -> None:
            turn = Turn(messages=[Message(role="user", content=said())])
            await svc.conversations.append_message(chat.id, turn, tenant_id=TENANT)

        return append

    def _search(self, tenant_id: str) -> Search:
        return lambda keywords: self.svc.conversations.search(tenant_id, keywords, limit=PAGE)


def _tenant(size: int) -> str:
    return f"s{size}"


def _by_ilike(connection: asyncpg.Connection, tenant_id: str) -> Search:
    return lambda keywords: connection.fetch(sql("search_by_ilike"), tenant_id, keywords, PAGE)


def _in_turn(search: Search, words: Sequence[str]) -> Work:
    turn = itertools.cycle(words)
    return lambda: search(next(turn))


def _counted(plain: Plain, keywords: str) -> int:
    return sum(1 for _ in itertools.islice(plain.hits(keywords), TOTAL_CAP))


def _milliseconds(taken: Measured) -> dict[str, float]:
    named = {"p50": 50, "p90": 90, "p99": 99, "longest": 100}
    return {f"ms {name}": round(taken.latency(percent), 1) for name, percent in named.items()}
