"""Search of any substring, beside a plain find, and what an append pays for it."""

from __future__ import annotations

import bisect
import random
import time
import urllib.parse
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Final

import asyncpg

import asyncsvc
from asyncsvc import Message, Turn
from benchmarks.measuring import Contender, Measured, contest
from benchmarks.report import Report

BIG: Final = "big"
DIALOG: Final = "support"
A_YEAR: Final = timedelta(days=365)
PAGE: Final = 20
EACH: Final = 8
LETTERS: Final = "etaoinshrdlucmfwypvbgkjqxz"
STOPS: Final = {True: "。、", False: ",.?!"}
PLANTED: Final = {"zqmid": 400, "zqrare": 20_000, "璁璇": 400, "蜜焰龘": 20_000}
"""Words that one message of so many holds."""
STALE: Final = "zqstale"
"""A word that only the oldest third of the conversations hold, one message in 25."""
CLASSES: Final = {
    "common": ("the most common word", "的一是", "。"),
    "in one of 400": ("zqmid", "璁璇"),
    "rare": ("zqrare", "蜜焰龘"),
    "absent": ("zqabsent", "龘龘", "etaonone"),
    "only far back": (STALE,),
}


@dataclass(frozen=True)
class Scale:
    """How much is written and searched."""

    conversations: int
    tenants: int
    theirs: int
    keywords: int
    rounds: int
    seconds: float


SCALES = {
    "small": Scale(200, 3, 20, 60, 2, 0.05),
    "middle": Scale(20_000, 10, 250, 200, 5, 0.2),
    "full": Scale(250_000, 50, 250, 800, 15, 0.4),
}


class Language:
    """Invented text whose words are as frequent as real ones are: the n-th one n times rarer."""

    def __init__(self, seed: int) -> None:
        """Invent words of Latin letters and of Chinese characters, as many as people use."""
        self.chance = random.Random(seed)  # noqa: S311
        characters = [chr(0x4E00 + number) for number in self.chance.sample(range(8_000), 3_755)]
        self._words = {
            False: ["".join(self._some(LETTERS, 2, 9)) for _ in range(33_000)],
            True: ["".join(self._some(characters, 1, 3)) for _ in range(30_000)],
        }
        self.common = self._words[False][0] + " "

    def _some(self, of: Sequence[str], least: int, most: int) -> list[str]:
        return [self._one(of) for _ in range(self.chance.randint(least, most))]

    def _one(self, of: Sequence[str]) -> str:
        return of[int(len(of) ** self.chance.random()) - 1]

    def message(self) -> str:
        """Write a message: mostly short, one in fifty long."""
        count = self.chance.choice((3, 5, 8, 12, 20))
        if self.chance.random() < 1 / 50:
            count = self.chance.randint(200, 600)
        is_chinese = self.chance.random() < 1 / 2
        words = [self._one(self._words[is_chinese]) for _ in range(count)]
        for number in range(count - 1, 0, -7):
            words[number] += self.chance.choice(STOPS[is_chinese])
        text = ("" if is_chinese else " ").join(words)
        return text if is_chinese else text.capitalize()


def conversations(language: Language, name: str, count: int) -> Iterator[dict[str, object]]:
    """Yield a year's conversations of one tenant, the oldest first."""
    now, chance = datetime.now(UTC), language.chance
    for number in range(count):
        said = [_planted(language.message(), chance) for _ in range(EACH)]
        if number < count / 3 and chance.random() < EACH / 25:
            said[0] += f" {STALE}"
        yield {
            "id": f"{name}-{number:032}",
            "dialog_id": DIALOG if chance.random() < 1 / 2 else f"d{chance.randrange(20)}",
            "user_id": f"u{chance.randrange(5_000)}",
            "name": language.message()[:40],
            "created_at": now - A_YEAR * (count - number) / count,
            "messages": [{"role": "user", "content": text} for text in said],
        }


def _planted(text: str, chance: random.Random) -> str:
    for word, one_of in PLANTED.items():
        if chance.random() < 1 / one_of:
            text += f" {word}"
    return text


@dataclass
class Plain:
    """All messages of a tenant in one text, the newest first, as a plain find reads them."""

    text: str = ""
    begins: list[int] = field(default_factory=list)
    places: list[tuple[str, int]] = field(default_factory=list)

    @classmethod
    async def read(cls, dsn: str) -> Plain:
        """Read them in the database's lower case."""
        parts, plain, length = list[str](), cls(), 0
        connection = await asyncpg.connect(dsn)
        query = """
            SELECT m.conversation_id, m.seq, lower(m.content) AS content
              FROM asyncsvc.message AS m
             WHERE m.tenant_id = $1
             ORDER BY m.conversation_created_at DESC, m.conversation_id DESC, m.seq
        """
        async with connection.transaction():
            async for row in connection.cursor(query, BIG, prefetch=5_000):
                plain.begins.append(length)
                plain.places.append((row["conversation_id"], row["seq"]))
                parts.append(row["content"])
                length += len(row["content"]) + 1
        await connection.close()
        plain.text = "\0".join(parts)
        return plain

    def hits(self, low: str) -> Iterator[tuple[str, int]]:
        """Yield each conversation that holds a text, with its first message that does."""
        at, last = self.text.find(low), None
        while at >= 0:
            number = bisect.bisect_right(self.begins, at) - 1
            if self.places[number][0] != last:
                last = self.places[number][0]
                yield self.places[number]
            end = self.begins[number + 1] if number + 1 < len(self.begins) else len(self.text)
            at = self.text.find(low, end)


async def run(dsn: str, scale: str, report: Report) -> None:
    """Write, fold, search and append; add the figures to the report."""
    how = SCALES[scale]
    language = Language(1)
    async with asyncsvc.connect(dsn) as svc:
        await svc.migrate()
        await _write(svc, language, how, report)
        await _fold(svc, dsn, report)
        await _substrings(svc, await Plain.read(dsn), language.chance, how, report)
        await _classes(svc, language, how, report)
    await _appends(dsn, how, report)


async def _write(svc: asyncsvc.AsyncSvc, language: Language, how: Scale, report: Report) -> None:
    began = time.perf_counter()
    for number in range(how.tenants):
        name = f"small{number}"
        records = conversations(language, name, how.theirs)
        await svc.conversations.load(records, tenant_id=name)
    written = await svc.conversations.load(
        conversations(language, BIG, how.conversations), tenant_id=BIG
    )
    report.note(
        "written",
        {"messages of one tenant": written.messages, "s": round(time.perf_counter() - began, 1)},
    )


async def _fold(svc: asyncsvc.AsyncSvc, dsn: str, report: Report) -> None:
    began = time.perf_counter()
    folded = await svc.maintain()
    seconds = time.perf_counter() - began
    connection = await asyncpg.connect(dsn)
    await connection.execute("VACUUM ANALYZE")
    sizes = await connection.fetchrow(
        "SELECT pg_relation_size('asyncsvc.message') / 2^20 AS heap,"
        "       pg_relation_size('asyncsvc.message_search_idx') / 2^20 AS index"
    )
    await connection.close()
    assert sizes is not None  # noqa: S101
    report.note(
        "folded",
        {
            "texts": folded.messages + folded.titles,
            "s": round(seconds, 1),
            "us each": round(1e6 * seconds / (folded.messages + folded.titles)),
            "MiB of messages": round(sizes["heap"], 1),
            "MiB of index": round(sizes["index"], 1),
        },
    )


async def _substrings(
    svc: asyncsvc.AsyncSvc, plain: Plain, chance: random.Random, how: Scale, report: Report
) -> None:
    """Search for random substrings, and compare each page and each total with a plain find."""
    taken, differing = Measured("random substrings"), 0
    for _ in range(how.keywords):
        low = _part(plain, chance)
        began = time.perf_counter()
        page = await svc.conversations.search(BIG, low, limit=PAGE)
        taken.seconds.append(time.perf_counter() - began)
        expected = list(islice(plain.hits(low), PAGE))
        total = (await svc.conversations.search(BIG, low, limit=1, total="capped")).total
        counted = sum(1 for _ in islice(plain.hits(low), 10_000))
        found = [(hit.id, hit.seq) for hit in page.items]
        differing += (found, total) != (expected, counted)
    report.note(
        f"{how.keywords} random substrings",
        {"differing from a plain find": differing} | _milliseconds(taken),
    )


def _part(plain: Plain, chance: random.Random) -> str:
    """Take 1 to 12 characters from within a message."""
    while True:
        begin = chance.randrange(len(plain.text))
        part = plain.text[begin : begin + chance.randint(1, 12)]
        if part and "\0" not in part:
            return part


async def _classes(svc: asyncsvc.AsyncSvc, language: Language, how: Scale, report: Report) -> None:
    """Search for words of each kind; and for all of them at the small tenants."""
    of_small = Measured("small tenants")
    for kind, words in CLASSES.items():
        taken = Measured(kind)
        for word in words:
            keywords = language.common if word == CLASSES["common"][0] else word
            for number in range(10 * how.rounds):
                taken.seconds.append(await _timed(svc, BIG, keywords))
                small = f"small{number % how.tenants}"
                of_small.seconds.append(await _timed(svc, small, keywords))
        report.note(f"words {kind}", _milliseconds(taken))
    report.note("all of these at small tenants", _milliseconds(of_small))


async def _timed(svc: asyncsvc.AsyncSvc, tenant_id: str, keywords: str) -> float:
    began = time.perf_counter()
    await svc.conversations.search(tenant_id, keywords, limit=PAGE)
    return time.perf_counter() - began


def _milliseconds(taken: Measured) -> dict[str, float]:
    named = {"p50": 50, "p90": 90, "p99": 99, "longest": 100}
    return {f"ms {name}": round(taken.latency(percent), 1) for name, percent in named.items()}


async def _appends(dsn: str, how: Scale, report: Report) -> None:
    """Append where there is a search, and where nothing of it is kept by an append."""
    text = Language(2).message
    async with (
        _copy(dsn) as bare,
        asyncsvc.connect(bare, max_size=1) as without,
        asyncsvc.connect(dsn, max_size=1) as with_search,
    ):
        await without.migrate()
        async with asyncpg.create_pool(bare, min_size=0) as pool:
            await pool.execute(
                "DROP INDEX asyncsvc.message_search_idx, asyncsvc.message_unindexed_idx"
            )
        contenders = []
        for name, svc in (("without", without), ("with search", with_search)):
            chat = await svc.conversations.create(tenant_id="appending", dialog_id=DIALOG)

            async def append(svc: asyncsvc.AsyncSvc = svc, id: str = chat.id) -> None:
                turn = Turn(messages=[Message(role="user", content=text())])
                await svc.conversations.append_message(id, turn, tenant_id="appending")

            contenders.append(Contender(name, [append]))
        measured = await contest(contenders, rounds=how.rounds, seconds=how.seconds)
    report.add("append of one message", measured)


@asynccontextmanager
async def _copy(dsn: str) -> AsyncIterator[str]:
    """Lend one more empty database."""
    name = f"{urllib.parse.urlsplit(dsn).path[1:]}_bare"
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    try:
        yield urllib.parse.urlsplit(dsn)._replace(path=f"/{name}").geturl()
    finally:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await connection.close()
