"""`asyncsvc import-ragflow`, from a real MariaDB and a real PostgreSQL with RAGFlow's columns."""

import asyncio
import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import traceback
import tracemalloc
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asyncsvc
from asyncsvc import (
    DatabaseError,
    InvalidInput,
    InvalidToken,
    Settings,
    Unavailable,
    ragflow,
)
from asyncsvc.cli.commands import ragflow_import
from asyncsvc.cli.terminal import console
from asyncsvc.database import sql_files
from asyncsvc.ragflow import drivers, source
from asyncsvc.ragflow.data_import import DataImport
from asyncsvc.ragflow.json_repair import InvalidJSONError, read_json
from asyncsvc.ragflow.reports import DataImportReport, Repair, RepairCount, Skip, TableReport
from asyncsvc.ragflow.shapes import short_user_id
from asyncsvc.validation.checks import check_json
from tests.cli.test_demo import environment
from tests.cli.test_import_export import exported, failed
from tests.database.test_sql_files import variants
from tests.support.command_line import PROGRAM, run_fork
from tests.support.forks import SECONDS
from tests.support.ragflow_sources import PASSWORD, TABLES, Database, MariaDB, mysql, program

DIALECTS = ("mysql", "postgresql")
CREATED = 1_760_000_000_000
CREATED_AT = datetime(2025, 10, 9, 8, 53, 20, tzinfo=UTC)
UPDATED_AT = CREATED_AT + timedelta(hours=1)
FOREIGN = Settings(accept_foreign_tokens=True)
SECRET = "ragflow-" + "Zk9_-" * 8 + "abc"
BETA = "Qw3rTy" * 5 + "zz"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    if program("mariadbd") is None:
        pytest.skip("there is no mariadbd: Debian has it in mariadb-server-core")
    server = MariaDB()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
async def databases(request, database_factory) -> AsyncIterator[Callable[[str], Database]]:
    """Create empty databases."""
    dsns: list[str] = []
    numbers = itertools.count()

    async def make(dialect: str) -> Database:
        if dialect == "postgresql":
            return Database(dialect, await database_factory(migrated=False))
        port = request.getfixturevalue("mariadb").port
        name = f"rag_flow_{os.getpid()}_{next(numbers)}"
        server = f"mysql://ragflow:{PASSWORD}@127.0.0.1:{port}/"
        with mysql(server) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        dsns.append(f"{server}{name}")
        return Database(dialect, f"{server}{name}")

    yield make
    for dsn in dsns:
        with mysql(dsn) as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {dsn.rpartition('/')[2]}")


@pytest.fixture(params=DIALECTS)
async def rag(request, databases) -> Database:
    """RAGFlow's tables, with a dialog and an agent of two tenants."""
    return await create_source(databases, request.param)


async def create_source(databases, dialect: str) -> Database:
    source = await databases(dialect)
    await source.create_tables()
    await source.insert(
        "dialog", [{"id": "d1", "tenant_id": "t1"}, {"id": "d2", "tenant_id": "t2"}]
    )
    await source.insert("user_canvas", [{"id": "a1", "user_id": "t1"}])
    return source


@pytest.fixture
def run(dsn: str, tmp_path: pathlib.Path) -> Run:
    """Run the command on the database of this test."""

    def call(*arguments: object, **more: str):
        env = environment(tmp_path) | {"ASYNCSVC_DSN": dsn} | more
        return run_fork(["import-ragflow", *arguments], env)

    return call


def session(id: str, message: object = (), **more: object) -> dict[str, object]:
    """Return a row of api_4_conversation. As in RAGFlow, lists and objects become JSON."""
    row: dict[str, object] = {
        "id": id, "dialog_id": "d1", "user_id": "u", "message": message, "reference": [],
        "tokens": 0, "source": None, "dsl": {}, "duration": 0.0, "round": 0, "thumb_up": 0,
        "errors": None, "name": None, "exp_user_id": None, "version_title": None,
        "create_time": CREATED, "create_date": CREATED_AT.replace(tzinfo=None),
        "update_time": CREATED + 3_600_000, "update_date": UPDATED_AT.replace(tzinfo=None),
    }  # fmt: skip
    row |= more
    for column in ("message", "reference", "dsl"):
        if not isinstance(row[column], str | None):
            row[column] = json.dumps(row[column])
    return row


def talk(*contents: str) -> list[dict[str, object]]:
    """Return messages of RAGFlow, the prologue first."""
    roles = itertools.cycle(("assistant", "user"))
    return [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]


async def fill(rag: Database, *rows: dict[str, object]) -> None:
    await rag.insert("api_4_conversation", rows)


async def run_import(svc, rag: Database | str, **options):
    """Run an import; return the report and the notes."""
    notes = []
    dsn = rag if isinstance(rag, str) else rag.dsn
    report = await DataImport(svc).run(dsn, on_note=notes.append, **options)
    for table in (report.conversations, report.tokens):
        skipped = sum(table.skipped.values())
        assert table.read == table.imported + table.updated + table.present + skipped
    return report, notes


async def stored_conversation(svc, id: str, tenant_id: str = "t1"):
    return await svc.conversations.get_by_id(id, tenant_id=tenant_id, include_messages=True)


def kinds(report) -> set[str]:
    return {str(kind) for kind in report.repaired}


# --- valid rows


async def test_valid_rows_are_imported_with_all_values(rag, svc):
    chat = talk("Hi! 你好", "Where is it? 🚚", "Here.", "And now?", "There.")
    chat[2] |= {"id": "m2", "created_at": CREATED / 1_000 + 20.5, "thumbup": True}
    chat[3] |= {"doc_ids": ["x"], "files": []}
    chat[4] |= {"thumbup": False, "feedback": "no", "created_at": CREATED + 30_000}
    first, second = {"chunks": [{"id": "c"}], "doc_aggs": []}, {}
    await fill(
        rag,
        session(
            "chat", chat, reference=[first, second], tokens=123, duration=1.25, round=2,
            thumb_up=1, name="分享 📦", exp_user_id="e", user_id="", errors="E", source="",
        ),
        session(
            "agent", talk("", "q", "a"), dialog_id="a1", source="agent",
            dsl={"graph": {"nodes": []}}, version_title="v1", reference=[{"chunks": {}}],
        ),
    )  # fmt: skip

    report, notes = await run_import(svc, rag)

    assert report.conversations == TableReport(read=2, imported=2)
    assert (report.messages, report.total, notes) == (8, 2, [])
    assert (report.is_complete, report.skipped_tables) == (True, ())
    assert set(report.missing) == {"api_token.name"}
    chat = await stored_conversation(svc, "chat")
    assert (chat.dialog_id, chat.user_id, chat.exp_user_id) == ("d1", "", "e")
    assert (chat.name, chat.source, chat.errors, chat.metadata) == ("分享 📦", None, "E", None)
    assert (chat.tokens, chat.duration, chat.round) == (123, 1.25, 2)
    assert (chat.thumb_up, chat.thumb_down, chat.dsl) == (1, 1, {})
    assert (chat.created_at, chat.updated_at) == (CREATED_AT, UPDATED_AT)
    prologue, question, answer, again, last = chat.messages
    assert (prologue.content, question.content) == ("Hi! 你好", "Where is it? 🚚")
    assert [message.role for message in chat.messages[:3]] == ["assistant", "user", "assistant"]
    assert (prologue.reference, answer.reference, last.reference) == (None, first, second)
    assert answer.payload == {"id": "m2", "created_at": CREATED / 1_000 + 20.5}
    assert (answer.thumb, last.thumb, question.thumb) == (1, -1, None)
    assert answer.created_at == CREATED_AT + timedelta(seconds=20.5)
    assert (again.created_at, last.created_at) == (
        answer.created_at,
        CREATED_AT + timedelta(seconds=30),
    )
    assert again.payload == {"doc_ids": ["x"], "files": []}
    assert last.payload == {"feedback": "no", "created_at": CREATED + 30_000}
    agent = await stored_conversation(svc, "agent")
    assert (agent.source, agent.version_title) == ("agent", "v1")
    assert agent.dsl == {"graph": {"nodes": []}}
    assert agent.messages[2].reference == {"chunks": {}}


async def test_ragflows_services_return_the_imported_rows(rag, svc):
    chat = talk("Hi", "q", "a", "q", "b")
    chat[2] |= {"id": "m", "created_at": CREATED / 1_000 + 9, "thumbup": True, "prompt": "p"}
    chat[4] |= {"content": {"parts": [1]}, "thumbup": False}
    rows = [
        session(
            "a", chat, reference=[{"chunks": [1]}, {}], tokens=7, round=2, thumb_up=1, name="n"
        ),
        session("b", chat, reference=[{}, {"chunks": [1]}, {}, {"chunks": [2]}], thumb_up=5),
        session("c", [{"role": 7, "content": "x"}], reference={"chunks": [3]}, errors="E"),
        session("d", None, dsl={"graph": {}}, user_id="v", source="agent", version_title="v1"),
    ]
    await fill(rag, *rows)
    await run_import(svc, rag, tz="Asia/Shanghai")
    sessions = ragflow.API4ConversationService(svc, tenant_id="t1", tz="UTC")
    total, stored = await sessions.get_list("d1", "t1", 1, 10, "create_time", True)
    assert total == len(rows)
    by_id = {row["id"]: row for row in rows}
    for row in stored:
        expected = by_id[row["id"]] | {
            name: json.loads(by_id[row["id"]][name] or "[]")
            for name in ("message", "reference", "dsl")
        }
        if row["id"] == "b":  # RAGFlow would use a further reference for the next answer
            del expected["reference"][3:]
        assert row == expected


async def test_imported_text_is_found_by_searches(rag, svc):
    texts = ["Straße 🚚 ünïcödé", "再见", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "cafe\u0301"]
    rows = [
        session(f"{at}{escaped}", json.dumps(talk("", text), ensure_ascii=escaped))
        for at, text in enumerate(texts)
        for escaped in (True, False)
    ]
    await fill(rag, *rows)
    report, notes = await run_import(svc, rag)
    assert (report.conversations.imported, notes) == (8, [])
    for at, text in enumerate(texts):
        page = await svc.conversations.search(tenant_id="t1", keywords=text, limit=10)
        assert {hit.id for hit in page.items} == {f"{at}True", f"{at}False"}
    assert (await stored_conversation(svc, "3True")).messages[1].content == "café"


async def test_a_float_is_not_rounded(rag, svc):
    await fill(rag, session("a", duration=12345.678))
    await run_import(svc, rag)
    assert (await stored_conversation(svc, "a")).duration == pytest.approx(12345.678, abs=1e-3)


# --- dirty rows

UGLY = '[{"role": "assistant", "content": "a\\u0000b\\ud83d \\ud83d\\ude9a"}]'
DEEP = "[" * 100 + "]" * 100
BIG = "9" * 5_000


def dirty() -> dict[str, tuple[dict[str, object], set[str], Callable[[object], object], object]]:
    """Return rows by id, each with its repairs, a part of the stored row and the expected value."""
    answers = talk("p", "q", "a", "q", "b")
    hints = {"content": ["x", 1], "role": "user"}
    late = CREATED / 1_000 + 86_400 * 30
    return {
        "null": (session("null", None), set(), lambda c: (c.messages, c.metadata), ((), None)),
        "empty": (session("empty", ""), set(), lambda c: c.messages, ()),
        "object": (session("object", "{}"), set(), lambda c: (c.messages, c.metadata), ((), None)),
        "dict": (
            session("dict", {"a": 1}), {"shape"},
            lambda c: (c.messages, c.metadata), ((), {"ragflow": {"message": {"a": 1}}}),
        ),
        "scalar": (
            session("scalar", "5"), {"shape"}, lambda c: c.metadata["ragflow"]["message"], 5,
        ),
        "nojson": (
            session("nojson", "[{'role': 'user'}]"), {"not_json"},
            lambda c: (c.messages, c.metadata["ragflow"]),
            ((), {"not_json": {"message": "[{'role': 'user'}]"}}),
        ),
        "endless": (
            session("endless", "[" * 200_000), {"not_json"},
            lambda c: len(c.metadata["ragflow"]["not_json"]["message"]), 200_000,
        ),
        "abyss": (
            session("abyss", "[" * 200_000 + "]" * 200_000), {"not_json"},
            lambda c: len(c.metadata["ragflow"]["not_json"]["message"]), 400_000,
        ),
        "nested": (
            session("nested", json.dumps(json.dumps(answers))), {"json_in_json"},
            lambda c: [m.content for m in c.messages], ["p", "q", "a", "q", "b"],
        ),
        "dsl": (
            session("dsl", dsl=json.dumps(json.dumps({"graph": [1]}))), {"json_in_json"},
            lambda c: c.dsl, {"graph": [1]},
        ),
        "dsltext": (session("dsltext", dsl='"{oops"'), set(), lambda c: c.dsl, "{oops"),
        "dslnull": (session("dslnull", dsl=None), set(), lambda c: c.dsl, None),
        "dslbad": (
            session("dslbad", dsl="{oops"), {"not_json"},
            lambda c: (c.dsl, c.metadata), (None, {"ragflow": {"not_json": {"dsl": "{oops"}}}),
        ),
        "dsldeep": (
            session("dsldeep", dsl=f'{{"a": {DEEP}}}'), {"depth"},
            lambda c: json.dumps(c.dsl).count("["), 100,
        ),
        "dslhuge": (session("dslhuge", dsl=["x" * 2**23]), {"lost"}, lambda c: c.dsl, None),
        "badhuge": (
            session("badhuge", dsl="{" + "x" * 2**23), {"not_json", "lost"},
            lambda c: (c.dsl, c.metadata), (None, None),
        ),
        "escaped": (
            session("escaped", UGLY), {"characters"},
            lambda c: c.messages[0].content, "a\ufffdb\ufffd 🚚",
        ),
        "keys": (
            session("keys", '[{"role": "user", "content": "a", "content": "b", "x\\u0000": 1}]'),
            {"duplicate_keys", "characters"},
            lambda c: (c.messages[0].content, c.messages[0].payload), ("b", {"x\ufffd": 1}),
        ),
        "nan": (
            session(
                "nan",
                f'[{{"role": "user", "content": "a", "n": [NaN, -Infinity, 1e999, {BIG}, 1.5]}}]',
            ),
            {"numbers"}, lambda c: c.messages[0].payload, {"n": [None, None, None, BIG, 1.5]},
        ),
        "controls": (
            session("controls", '[{"role": "user", "content": "a\tb\nc"}]'), set(),
            lambda c: c.messages[0].content, "a\tb\nc",
        ),
        "items": (
            session("items", ["hello", *talk("a"), None]), {"shape"},
            lambda c: ([m.content for m in c.messages], c.metadata),
            (["a"], {"ragflow": {"items": {"0": "hello", "2": None}}}),
        ),
        "role": (
            session("role", [{"content": "a"}, {"role": 5, "content": "b"}, {"role": "r" * 33}]),
            {"role", "content"}, lambda c: [(m.role, m.content, m.payload) for m in c.messages],
            [
                ("unknown", "a", {}),
                ("unknown", "b", {"role": 5}),
                ("unknown", "", {"content": None, "role": "r" * 33}),
            ],
        ),
        "content": (
            session("content", [hints, {"role": "user", "content": None}]), {"content"},
            lambda c: [(json.loads(c.messages[0].content), c.messages[0].payload["content"]),
                       c.messages[1].content],
            [(["x", 1], ["x", 1]), ""],
        ),
        "leftover": (
            session("leftover", answers, reference=[{}, {"a": 1}, {}, {"b": 2}]),
            {"references"},
            lambda c: ([m.reference for m in c.messages], c.metadata),
            ([{}, None, {"a": 1}, None, {}], {"ragflow": {"reference": [{"b": 2}]}}),
        ),
        "nothingleft": (
            session("nothingleft", answers, reference=[{}, {}, {}, None]), set(),
            lambda c: c.metadata, None,
        ),
        "refdict": (
            session("refdict", answers, reference={"chunks": [1]}), {"shape"},
            lambda c: c.metadata, {"ragflow": {"reference": {"chunks": [1]}}},
        ),
        "refbad": (
            session("refbad", answers, reference="nope"), {"not_json"},
            lambda c: c.metadata, {"ragflow": {"not_json": {"reference": "nope"}}},
        ),
        "thumbs": (
            session("thumbs", answers, thumb_up=1), {"thumbs"},
            lambda c: [m.thumb for m in c.messages], [None, None, None, None, 1],
        ),
        "morethumbs": (
            session("morethumbs", [answers[1], answers[2] | {"thumbup": False}], thumb_up=3),
            {"thumbs"}, lambda c: (c.thumb_up, c.thumb_down, c.metadata),
            (0, 1, {"ragflow": {"thumb_up": 3}}),
        ),
        "counters": (
            session("counters", talk("", "q"), tokens=-5, duration=-1.0, round=-2, thumb_up=-1),
            {"counters"},
            lambda c: (c.tokens, c.duration, c.round, c.thumb_up, c.metadata["ragflow"]),
            (0, 0.0, 1, 0, {
                "counters": {"thumb_up": -1, "tokens": -5, "duration": -1.0, "round": -2},
            }),
        ),
        "bydate": (
            session("bydate", create_time=None, update_time=None), {"times"},
            # These dates are local times of Berlin, which is 2 hours ahead of UTC in October.
            lambda c: (c.created_at, c.updated_at),
            (CREATED_AT - timedelta(hours=2), UPDATED_AT - timedelta(hours=2)),
        ),
        "bymessage": (
            session(
                "bymessage", [answers[0] | {"created_at": 1_750_000_000}, answers[1]],
                create_time=None, create_date=None, update_time=None, update_date=None,
            ),
            {"times"}, lambda c: (c.created_at, c.updated_at),
            (datetime.fromtimestamp(1_750_000_000, UTC),) * 2,
        ),
        "byclock": (
            session(
                "byclock", answers,
                create_time=None, create_date=None, update_time=0, update_date=None,
            ),
            {"times"}, lambda c: datetime.now(UTC) - c.created_at < timedelta(hours=1), True,
        ),
        "backwards": (
            session("backwards", update_time=CREATED - 10_000), {"times"},
            lambda c: c.updated_at, CREATED_AT,
        ),
        "inseconds": (
            session("inseconds", create_time=CREATED // 1_000), {"times"},
            lambda c: c.created_at, CREATED_AT,
        ),
        "dated": (
            session("dated", [
                answers[0] | {"created_at": "yesterday"}, answers[1] | {"created_at": 7},
                answers[2] | {"created_at": late}, answers[3] | {"created_at": 10**400},
                answers[4] | {"created_at": CREATED / 1_000 - 5},
            ]),
            {"times"}, lambda c: {m.created_at for m in c.messages}, {CREATED_AT},
        ),
        "user": (
            session("user", user_id="x" * 200, exp_user_id="y" * 200), {"users"},
            lambda c: (c.user_id, c.exp_user_id, c.metadata),
            (short_user_id("x" * 200), short_user_id("y" * 200),
             {"ragflow": {"user_id": "x" * 200, "exp_user_id": "y" * 200}}),
        ),
        "canvas": (session("canvas", dialog_id="a1"), set(), lambda c: c.dialog_id, "a1"),
    }  # fmt: skip


REJECTED = {
    "orphan": (
        session("orphan", dialog_id="gone"),
        Skip.NO_TENANT,
        "its dialog or agent was deleted",
    ),
    "": (session(""), Skip.REJECTED, "id: must be 1 to 128 characters"),
    "long": (
        session("long", talk("x" * 2**21)),
        Skip.REJECTED,
        "messages.0.content: must be at m",
    ),
    "rawhuge": (
        session("rawhuge", "x" * 2**23),
        Skip.TOO_LONG,
        "message: is not a list of messages",
    ),
}


async def test_dirty_rows_are_repaired_or_reported(rag, svc):
    cases = dirty()
    await fill(rag, *(row for row, *_ in (*cases.values(), *REJECTED.values())))

    report, notes = await run_import(svc, rag, tz="Europe/Berlin")

    repaired: dict[str, set[str]] = {id: set() for id in cases}
    skipped = {}
    for note in notes:
        if isinstance(note.kind, Skip):
            skipped[note.row] = note
        else:
            repaired[note.row].add(str(note.kind))
    for id, (_, expected, part, value) in cases.items():
        assert (id, repaired[id]) == (id, expected)
        assert (id, part(await stored_conversation(svc, id))) == (id, value)
    assert skipped.keys() == REJECTED.keys()
    for id, (_, kind, reason) in REJECTED.items():
        assert (skipped[id].kind, skipped[id].table) == (kind, "api_4_conversation")
        assert skipped[id].reason.startswith(reason)
    assert report.conversations == TableReport(
        read=len(cases) + len(REJECTED),
        imported=len(cases),
        skipped={Skip.NO_TENANT: 1, Skip.REJECTED: 2, Skip.TOO_LONG: 1},
    )
    assert not report.is_complete
    assert kinds(report) == set(Repair)
    for kind, named in report.repaired.items():
        of_kind = [note.row for note in notes if note.kind is kind]
        assert (named.rows, list(named.ids)) == (len(of_kind), of_kind[:5])


async def test_mysql_and_postgresql_have_the_same_results(databases, database_factory):
    outcomes = []
    for dialect in DIALECTS:
        rag = await create_source(databases, dialect)
        await fill(rag, *(row for row, *_ in (*dirty().values(), *REJECTED.values())))
        async with asyncsvc.connect(await database_factory()) as svc:
            report, notes = await run_import(svc, rag)
            stored = {each.id: each for each in await exported(svc, "t1")}
        del stored["byclock"]
        outcomes.append((report.model_dump(exclude={"repaired"}), kinds(report), stored,
                         sorted(notes, key=lambda note: (note.row, note.kind))))  # fmt: skip
    assert outcomes[0] == outcomes[1]


async def test_columns_of_other_types_are_read(databases, svc):
    rag = await create_source(databases, "postgresql")
    await fill(rag, session("a", talk("p"), tokens=7), session("b", duration=float("nan")))
    for column, kind in (
        ("tokens", "text"), ("create_time", "text"), ("round", "numeric"),
        ("create_date", "timestamptz"),
    ):  # fmt: skip
        await rag.execute(
            f"ALTER TABLE api_4_conversation ALTER {column} TYPE {kind} USING {column}::{kind}"
        )
    await rag.execute("UPDATE api_4_conversation SET tokens = 'many' WHERE id = 'b'")
    report, _ = await run_import(svc, rag)
    assert (report.conversations.imported, kinds(report)) == (2, {"counters", "times"})
    a, b = await stored_conversation(svc, "a"), await stored_conversation(svc, "b")
    assert (a.tokens, a.created_at, len(a.messages)) == (7, CREATED_AT, 1)
    assert b.metadata == {"ragflow": {"counters": {"tokens": "many", "duration": "nan"}}}


async def test_dates_outside_pythons_range_are_repaired(databases, dsn):
    rag = await create_source(databases, "postgresql")
    messages = talk("p")
    messages[0]["created_at"] = CREATED + 5_000
    dates = ("20250-06-15", "0044-03-15 BC", "infinity")
    await fill(
        rag,
        *(session(f"known{at}") for at, _ in enumerate(dates)),
        *(session(f"near{at}", messages, create_time=None, update_time=None)
          for at, _ in enumerate(dates)),
    )  # fmt: skip
    await rag.insert("api_token", [token("t1", SECRET), token("t1", "S" * 40, create_time=None)])
    for at, date in enumerate(dates):
        await rag.execute(
            f"UPDATE api_4_conversation SET create_date = '{date}', update_date = '{date}'"
            f" WHERE id LIKE '%{at}'"
        )
    await rag.execute(
        f"UPDATE api_token SET create_date = '{dates[0]}', update_date = '{dates[1]}'"
    )
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        report, notes = await run_import(svc, rag)
        assert (await svc.tokens.verify(SECRET)).created_at == CREATED_AT
        await svc.tokens.verify("S" * 40)
        for at, _ in enumerate(dates):
            assert (await stored_conversation(svc, f"known{at}")).created_at == CREATED_AT
            assert (
                await stored_conversation(svc, f"near{at}")
            ).created_at == CREATED_AT + timedelta(seconds=5)
    assert (report.conversations.imported, report.tokens.imported) == (6, 2)
    assert {(note.row[:-1], note.kind) for note in notes} == {("near", Repair.TIMES)}


@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date", "text"])
async def test_dates_are_read_regardless_of_the_session_settings(databases, svc, kind):
    rag = await create_source(databases, "postgresql")
    await fill(rag, session("a", create_time=None), session("b"))
    await rag.execute(
        f"ALTER TABLE api_4_conversation ALTER create_date TYPE {kind} USING create_date::{kind}"
    )
    for name, value in (("DateStyle", "'German, DMY'"), ("TimeZone", "'Asia/Kolkata'")):
        await rag.execute(f"ALTER DATABASE {rag.dsn.rpartition('/')[2]} SET {name} = {value}")
    report, _ = await run_import(svc, rag)
    assert report.conversations.imported == 2
    midnight = CREATED_AT.replace(hour=0, minute=0, second=0)
    expected = midnight if kind == "date" else CREATED_AT
    assert (await stored_conversation(svc, "a")).created_at == expected


async def test_values_that_only_mysql_can_store_are_repaired(databases, svc):
    rag = await create_source(databases, "mysql")
    await rag.execute("SET sql_mode = ''")
    await fill(rag, session("a", '[{"role": "user", "content": "x\0y"}]', name="n\0", user_id="\0"))
    await rag.execute("ALTER TABLE api_4_conversation MODIFY create_date DATETIME NULL")
    await rag.execute(
        "UPDATE IGNORE api_4_conversation SET create_time = NULL,"
        " create_date = '2025-02-31 00:00:00'"
    )
    report, _ = await run_import(svc, rag)
    stored = await stored_conversation(svc, "a")
    assert (stored.name, stored.user_id, stored.messages[0].content) == (
        "n\ufffd",
        "\ufffd",
        "x\ufffdy",
    )
    assert kinds(report) == {"characters", "times"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@settings(deadline=None)
@given(JSON_VALUES, st.integers(0, 3), st.integers(1, 8))
def test_any_json_becomes_storable(value, layers, depth):
    text = json.dumps(value)
    for _ in range(layers):
        text = json.dumps(text)
    read, repairs = read_json(text, depth)
    check_json(read, Settings(max_json_depth=depth))
    if not repairs and not layers:
        assert read == value


@settings(deadline=None)
@given(st.text(st.characters(codec=None)))
def test_any_text_is_parsed_or_raises_invalid_json(text):
    try:
        value = read_json(text, 8)[0]
        check_json(value, Settings())
    except InvalidJSONError:
        return
    assert json.loads(json.dumps(value)) == value  # no NaN, no key that is not text


def test_two_long_user_ids_stay_different():
    one, two = ("x" * 200 + end for end in "ab")
    assert len(short_user_id(one)) == 128
    assert short_user_id(one) == short_user_id(one) != short_user_id(two)


# --- later imports


async def test_a_second_import_changes_nothing(rag, dsn):
    await fill(rag, *(row for row, *_ in dirty().values()))
    await rag.insert("api_token", [token("t1", SECRET)])
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        first, _ = await run_import(svc, rag)
        before = await exported(svc, "t1")
        again, _ = await run_import(svc, rag)
        assert await exported(svc, "t1") == before
    read = first.conversations.read
    assert again.conversations == TableReport(read=read, present=read)
    assert again.tokens == TableReport(read=1, present=1)
    assert (again.messages, again.repaired) == (0, first.repaired)


async def set_messages(rag: Database, id: str, messages: object, **more: object) -> None:
    values = {"message": json.dumps(messages)} | more
    columns = ", ".join(f"{name} = %s" for name in values)
    await rag.execute(
        f"UPDATE api_4_conversation SET {columns} WHERE id = %s", *values.values(), id
    )


async def test_new_messages_of_the_source_are_appended(rag, dsn):
    begun = talk("p", "q1", "cafe\u0301")
    await fill(
        rag,
        *(session(id, begun, tokens=10, duration=1.5, round=1, reference=[{"chunks": [1]}])
          for id in ("grows", "edited", "shorter", "ours", "same", "popped")),
    )  # fmt: skip
    async with asyncsvc.connect(dsn, settings=Settings(max_batch_size=2)) as svc:
        await run_import(svc, rag)
        mine = {"messages": [{"role": "user", "content": "here"}]}
        await svc.conversations.append_message("ours", mine, tenant_id="t1")
        await svc.conversations.append_message("same", mine, tenant_id="t1")
        await svc.conversations.pop_message("popped", tenant_id="t1")
        whole = talk("p", "q1", "cafe\u0301", "q2", "a2", "q3", "a3", "q4")
        whole[6]["thumbup"] = True
        references = [{"chunks": [n]} for n in (1, 2, 3)]
        await set_messages(
            rag, "grows", whole, tokens=25, duration=4.0, round=3, errors="E",
            dsl=json.dumps(json.dumps({"n": 2})), reference=json.dumps(references),
        )  # fmt: skip
        await set_messages(rag, "edited", talk("p", "q1", "other", "q2"))
        await set_messages(rag, "shorter", talk("p"))
        for id in ("ours", "popped"):
            await set_messages(rag, id, talk("p", "q1", "cafe\u0301", "q2"))

        report, notes = await run_import(svc, rag)

        assert report.conversations == TableReport(
            read=6, updated=1, present=2, skipped={Skip.DIVERGED: 3}
        )
        assert report.messages == 5
        assert {note.row for note in notes if note.kind is Skip.DIVERGED} == {
            "edited", "ours", "popped",
        }  # fmt: skip
        grown = await stored_conversation(svc, "grows")
        contents = [unicodedata.normalize("NFC", m["content"]) for m in whole]
        assert [m.content for m in grown.messages] == contents
        assert [m.seq for m in grown.messages] == list(range(1, 9))
        assert (grown.tokens, grown.duration, grown.round) == (25, 4.0, 3)
        assert (grown.errors, grown.dsl, grown.thumb_up) == ("E", {"n": 2}, 1)
        assert [m.reference for m in grown.messages[2::2]] == references
        assert grown.created_at == CREATED_AT
        again, _ = await run_import(svc, rag)
        assert again.conversations == TableReport(read=6, present=3, skipped={Skip.DIVERGED: 3})
        (bucket,) = await svc.conversations.stats(
            tenant_id="t1",
            from_date=CREATED_AT,
            to_date=CREATED_AT,
            source=None,
            fill=False,
            basis="creation",
        )
        assert (bucket.conversations, bucket.tokens) == (6, 75)


async def test_a_concurrent_append_is_not_overwritten(rag, svc, monkeypatch):
    await fill(rag, session("a", talk("p", "q")))
    await run_import(svc, rag)
    await set_messages(rag, "a", talk("p", "q", "a"))
    original = asyncsvc.API4ConversationService.get_by_id

    reads = itertools.count()

    async def read_then_append(self, id, **options):
        seen = await original(self, id, **options)
        if next(reads) == 0:
            mine = {"messages": [{"role": "user", "content": "here"}]}
            await svc.conversations.append_message(id, mine, tenant_id="t1")
        return seen

    with monkeypatch.context() as patched:
        patched.setattr(asyncsvc.API4ConversationService, "get_by_id", read_then_append)
        report, _ = await run_import(svc, rag)
    assert report.conversations == TableReport(read=1, skipped={Skip.DIVERGED: 1})
    assert [message.content for message in (await stored_conversation(svc, "a")).messages] == [
        "p",
        "q",
        "here",
    ]


@pytest.mark.parametrize("is_before", [True, False])
async def test_messages_that_another_import_appended_are_present(rag, svc, monkeypatch, is_before):
    await fill(rag, session("a", talk("p", "q")))
    await run_import(svc, rag)
    await set_messages(rag, "a", talk("p", "q", "a"))
    original = asyncsvc.API4ConversationService.get_by_id
    reads = itertools.count()

    async def read_then_import(self, id, **options):
        seen = None if is_before else await original(self, id, **options)
        if next(reads) == 0:
            report, _ = await run_import(svc, rag)
            assert report.conversations == TableReport(read=1, updated=1)
        return seen or await original(self, id, **options)

    monkeypatch.setattr(asyncsvc.API4ConversationService, "get_by_id", read_then_import)
    report, notes = await run_import(svc, rag)
    assert (report.conversations, report.messages) == (TableReport(read=1, present=1), 0)
    assert (report.is_complete, notes) == (True, [])


async def test_the_growth_of_the_counters_is_imported(rag, svc):
    await fill(rag, session("a", talk("p", "q")), session("b", talk("p", "q")))
    await run_import(svc, rag)
    more = {"round": 2_500, "tokens": 1_500_000_000, "duration": 7.5}
    for id in "ab":
        await set_messages(
            rag, id, talk("p", "q", *(["a", "q", "a"] if id == "a" else "a")), **more
        )
    report, notes = await run_import(svc, rag)
    assert report.conversations == TableReport(read=2, updated=1, skipped={Skip.REJECTED: 1})
    grown = await stored_conversation(svc, "a")
    assert (grown.round, grown.tokens, grown.duration) == (2_500, 1_500_000_000, 7.5)
    assert [message.content for message in grown.messages] == ["p", "q", "a", "q", "a"]
    assert notes[0].reason == "round: has grown too much for the number of new messages"
    assert len((await stored_conversation(svc, "b")).messages) == 2


async def test_new_messages_are_appended_completely_or_not_at_all(rag, dsn, monkeypatch):
    await fill(rag, session("a", talk("p", "q")))
    async with asyncsvc.connect(dsn, settings=Settings(max_batch_size=1)) as svc:
        await run_import(svc, rag)
        await set_messages(rag, "a", talk("p", "q", "a", "q", "a"))
        appends = itertools.count()
        original = asyncsvc.API4ConversationService.append_message

        async def fail_at_the_last_append(self, *arguments, **options):
            if next(appends) == 2:
                raise Unavailable("gone")
            return await original(self, *arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(
                asyncsvc.API4ConversationService, "append_message", fail_at_the_last_append
            )
            with pytest.raises(Unavailable):
                await run_import(svc, rag)
        assert len((await stored_conversation(svc, "a")).messages) == 2
        report, _ = await run_import(svc, rag)
        assert report.conversations.updated == 1
        assert len((await stored_conversation(svc, "a")).messages) == 5


async def test_an_import_continues_after_it_was_killed(rag, run, svc, dsn, tmp_path):
    rows = [session(f"{at:05}", talk("p", "q" * 3_000, f"a{at}")) for at in range(6_000)]
    await fill(rag, *rows)
    for number in (signal.SIGKILL, signal.SIGINT):
        before = await svc.conversations.get_list(dialog_id="d1", tenant_id="t1", items_per_page=1)
        child = subprocess.Popen(
            [*PROGRAM, "import-ragflow", rag.dsn],
            env=environment(tmp_path) | {"ASYNCSVC_DSN": dsn},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while (
            await svc.conversations.get_list(dialog_id="d1", tenant_id="t1", items_per_page=1)
        ).total <= before.total:
            assert child.poll() is None
            await asyncio.sleep(0.02)
        child.send_signal(number)
        _, output = child.communicate(timeout=SECONDS)
    stored = await svc.conversations.get_list(dialog_id="d1", tenant_id="t1", items_per_page=1)
    assert 0 < stored.total < len(rows)
    assert child.returncode == 130
    assert output.startswith(
        "stopped: the imported conversations are complete; run the same command"
    )
    after = re.search(r"--after (\d{5})$", output)[1]
    finished = run(rag.dsn, "--after", after, "--json")
    assert (finished.returncode, finished.stderr) == (0, "")
    report = json.loads(finished.stdout)
    assert report["conversations"]["read"] == report["total"] == len(rows) - int(after) - 1
    items = await exported(svc, "t1")
    assert [item.id for item in items] == [row["id"] for row in rows]
    assert {len(item.messages) for item in items} == {3}


# --- dry runs


def token(tenant_id: str, secret: str, **more: object) -> dict[str, object]:
    row = {
        "tenant_id": tenant_id, "token": secret, "dialog_id": None, "source": None, "beta": None,
        "status": "1", "create_time": CREATED, "create_date": None,
    }  # fmt: skip
    return row | more


async def test_a_dry_run_reports_the_same_and_stores_nothing(rag, dsn):
    await fill(rag, *(row for row, *_ in (*dirty().values(), *REJECTED.values())))
    await rag.insert("api_token", [token("t1", SECRET), token("t2", SECRET), token("t2", "weak")])
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        for _ in range(2):
            tried, notes = await run_import(svc, rag, dry_run=True)
            assert await exported(svc, "t1") == []
            assert (await svc.tokens.get_list(tenant_id="t1")).items == []
            real, others = await run_import(svc, rag)
            assert tried == real.model_copy(update={"dry_run": True})
            assert notes == others
            await set_messages(rag, "content", talk("p", "q"))
            await set_messages(rag, "nested", [*talk("p", "q", "a", "q", "b"), *talk("more")])
            await svc.conversations.delete_by_dialog_ids(["a1"], tenant_id="t1")
            break
        tried, _ = await run_import(svc, rag, dry_run=True)
        assert (tried.conversations.updated, tried.conversations.imported) == (1, 1)
        assert len((await stored_conversation(svc, "nested")).messages) == 5
        real, _ = await run_import(svc, rag)
        assert tried == real.model_copy(update={"dry_run": True})


# --- the source is only read


async def readable(rag: Database) -> str:
    """Return the DSN for a role that can only select."""
    if rag.dialect == "mysql":
        name = rag.dsn.rpartition("/")[2]
        await rag.execute("CREATE OR REPLACE USER reader@'127.0.0.1' IDENTIFIED BY 'reader'")
        await rag.execute(f"GRANT SELECT ON {name}.* TO reader@'127.0.0.1'")
    else:
        with contextlib.suppress(asyncpg.DuplicateObjectError):
            await rag.execute("CREATE ROLE reader LOGIN PASSWORD 'reader'")
        for table in TABLES:
            await rag.execute(f"GRANT SELECT ON {table} TO reader")
    return rag.as_reader()


async def test_the_right_to_select_is_enough(rag, svc):
    await fill(rag, session("a", talk("p")))
    report, _ = await run_import(svc, await readable(rag))
    assert report.conversations == TableReport(read=1, imported=1)
    if rag.dialect == "postgresql":
        for table in TABLES:
            await rag.execute(f"REVOKE ALL ON {table} FROM reader")


async def test_the_session_on_the_source_may_not_write(rag):
    async with source.open_source(rag.dsn) as opened:
        for text in ("DELETE FROM dialog", "INSERT INTO dialog (id, tenant_id) VALUES ('x', 'y')"):
            with pytest.raises(DatabaseError, match=r"(?i)the source: .*read.only"):
                await opened._connection.fetch(sql_files.Query("x", text, ()))
    assert len(await rag.execute("SELECT id FROM dialog")) == 2


# --- memory


async def test_memory_does_not_grow_with_the_source(rag, svc, monkeypatch):
    monkeypatch.setattr(source, "_PAGE_BYTES", 2**17)
    peaks = []
    for first, last in ((0, 120), (120, 1_320)):
        rows = [session(f"{at:06}", talk("p", "q" * 4_000)) for at in range(first, last)]
        await fill(rag, *rows)
        del rows
        tracemalloc.start()
        report = await DataImport(svc).run(rag.dsn, after=f"{first - 1:06}" if first else None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert report.conversations.imported == last - first
    assert peaks[1] < peaks[0] * 1.25 + 2**17


async def test_pages_are_cut_by_bytes_and_one_row_may_be_larger(rag, monkeypatch):
    monkeypatch.setattr(source, "_PAGE_BYTES", 1_000)
    monkeypatch.setattr(source, "MAX_ROW_BYTES", 5_000)
    sizes = [10, 400, 400, 400, 2_000, 10, 9_000, 10]
    await fill(rag, *(session(f"{at}", "x" * size) for at, size in enumerate(sizes)))
    async with source.open_source(rag.dsn) as opened:
        pages = [page async for page in opened.pages(after=None, tenant_id=None, orphans=False)]
        assert await opened.count(after="3", tenant_id=None, orphans=False) == 4
    assert [([row["id"] for row in page.rows], page.too_long) for page in pages] == [
        (["0", "1", "2"], ()), (["3"], ()), (["4"], ()), (["5"], ()), ([], ("6",)), (["7"], ()),
    ]  # fmt: skip


# --- other sources


async def test_a_database_of_another_application_is_rejected(databases, svc):
    for dialect in DIALECTS:
        rag = await databases(dialect)
        with pytest.raises(InvalidInput, match="source: is not RAGFlow's: there is no api_4_conv"):
            await run_import(svc, rag)
        await rag.execute("CREATE TABLE dialog (id INTEGER)")
        with pytest.raises(InvalidInput, match="is not RAGFlow's"):
            await run_import(svc, rag)


async def test_an_older_version_without_some_columns_and_tables_is_imported(rag, svc):
    await fill(rag, session("a", talk("p", "q")), session("b", dialog_id="a1"))
    for column in ("name", "exp_user_id", "errors", "version_title", "update_time", "reference"):
        await rag.execute(f"ALTER TABLE api_4_conversation DROP COLUMN {column}")
    await rag.execute("DROP TABLE user_canvas")
    await rag.execute("DROP TABLE api_token")
    report, _ = await run_import(svc, rag)
    assert report.conversations == TableReport(read=2, imported=1, skipped={Skip.NO_TENANT: 1})
    assert set(report.missing) == {
        "user_canvas", "api_token", "api_4_conversation.name", "api_4_conversation.exp_user_id",
        "api_4_conversation.errors", "api_4_conversation.version_title",
        "api_4_conversation.update_time", "api_4_conversation.reference",
    }  # fmt: skip
    assert report.skipped_tables == ("api_token",)
    stored = await stored_conversation(svc, "a")
    assert (stored.updated_at, len(stored.messages)) == (UPDATED_AT, 2)
    with pytest.raises(
        InvalidInput, match="orphans: cannot be distinguished from agents without user_canvas"
    ):
        await run_import(svc, rag, orphans="t9")
    report, _ = await run_import(svc, rag, orphans="t9", only="tokens")
    assert report.skipped_tables == ("api_token",)


async def test_a_table_without_a_required_column_is_skipped(rag, svc, run):
    await fill(rag, session("a"))
    await rag.insert("api_token", [token("t1", SECRET)])
    await rag.execute("ALTER TABLE api_4_conversation DROP COLUMN message")
    finished = run(rag.dsn)
    assert finished.returncode == 3
    assert re.search(r"^skipped tables +api_4_conversation *$", finished.stdout, re.MULTILINE)
    assert re.search(r"^missing .*api_4_conversation\.message", finished.stdout, re.MULTILINE)
    assert re.search(r"^ *tokens +1 +1 ", finished.stdout, re.MULTILINE)


async def test_empty_tables_are_complete(rag, svc):
    report, notes = await run_import(svc, rag)
    assert (report.conversations, report.tokens, notes) == (TableReport(), TableReport(), [])
    assert report.is_complete


async def test_columns_of_different_collations_are_compared(databases, svc):
    rag = await create_source(databases, "mysql")
    await fill(rag, session("a"), session("b", dialog_id="a1"), session("c", dialog_id="gone"))
    for table, collation in (("dialog", "utf8mb4_unicode_ci"), ("user_canvas", "utf8mb3_bin")):
        charset = collation.partition("_")[0]
        await rag.execute(
            f"ALTER TABLE {table} CONVERT TO CHARACTER SET {charset} COLLATE {collation}"
        )
    import pymysql

    with pytest.raises(pymysql.err.OperationalError, match="Illegal mix"):
        await rag.execute("SELECT 1 FROM dialog AS d JOIN api_4_conversation AS c"
                          " ON c.dialog_id = d.id")  # fmt: skip
    report, _ = await run_import(svc, rag, tenant_id="t1", orphans="t1")
    assert report.conversations == TableReport(read=3, imported=3)
    assert report.total == 3


# --- tenants


async def test_one_tenant_is_imported_alone(rag, dsn):
    await fill(
        rag,
        session("a"), session("b", dialog_id="d2"), session("c", dialog_id="a1"),
        session("d", dialog_id="gone"),
    )  # fmt: skip
    await rag.insert("api_token", [token("t1", SECRET), token("t2", BETA)])
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        report, _ = await run_import(svc, rag, tenant_id="t1")
        assert report.conversations == TableReport(read=2, imported=2)
        assert (report.total, report.tokens) == (2, TableReport(read=1, imported=1))
        assert [item.id for item in await exported(svc, "t1")] == ["a", "c"]
        assert await exported(svc, "t2") == []
        report, _ = await run_import(svc, rag, tenant_id="t2", orphans="t2", only="conversations")
        assert (report.conversations, report.tokens) == (
            TableReport(read=2, imported=2),
            TableReport(),
        )
        assert [item.id for item in await exported(svc, "t2")] == ["b", "d"]
        report, _ = await run_import(svc, rag, tenant_id="t2", only="tokens")
        assert (report.conversations, report.tokens) == (
            TableReport(),
            TableReport(read=1, imported=1),
        )


async def test_tenants_are_compared_exactly(rag, dsn):
    """Regardless of the collation, and of agents with the id of a dialog."""
    await rag.insert(
        "dialog",
        [{"id": "upper", "tenant_id": "T1"}, {"id": "empty", "tenant_id": ""},
         {"id": "both", "tenant_id": "t2"}, {"id": "mine", "tenant_id": "t1"}],
    )  # fmt: skip
    await rag.insert(
        "user_canvas",
        [{"id": "a9", "user_id": "T1"},
         {"id": "empty", "user_id": "t1"}, {"id": "both", "user_id": "t1"},
         {"id": "mine", "user_id": "t2"}],
    )  # fmt: skip
    dialogs = ("d1", "upper", "empty", "both", "mine", "a9", "gone")
    await fill(rag, *(session(dialog, dialog_id=dialog) for dialog in dialogs))
    await rag.insert("api_token", [token("t1", SECRET), token("T1", BETA)])
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        for orphans in (None, "t1"):
            report, notes = await run_import(svc, rag, tenant_id="t1", orphans=orphans)
            assert report.total == report.conversations.read
            assert (report.tokens.read, notes) == (1, [])
        stored = {item.id for item in await exported(svc, "t1")}
        assert stored == {"d1", "empty", "mine", "gone"}
        for other in ("T1", "t2"):
            assert await exported(svc, other) == []
        report, _ = await run_import(svc, rag, tenant_id="T1")
        assert report.tokens == TableReport(read=1, imported=1)
        assert {item.id for item in await exported(svc, "T1")} == {"upper", "a9"}


async def test_rows_of_an_invalid_tenant_are_rejected(rag, svc):
    await rag.execute("ALTER TABLE dialog DROP COLUMN tenant_id")
    await rag.execute("ALTER TABLE dialog ADD COLUMN tenant_id VARCHAR(255)")
    await rag.execute("UPDATE dialog SET tenant_id = %s WHERE id = 'd1'", "x" * 200)
    await rag.execute("UPDATE dialog SET tenant_id = '' WHERE id = 'd2'")
    await fill(rag, session("a"), session("b", dialog_id="d2"), session("c", dialog_id="a1"))
    report, notes = await run_import(svc, rag)
    assert report.conversations == TableReport(
        read=3, imported=1, skipped={Skip.REJECTED: 1, Skip.NO_TENANT: 1}
    )
    assert next(note.reason for note in notes if note.row == "a").startswith("tenant_id: must be")


# --- tokens


async def test_a_beta_that_is_added_later_belongs_to_its_token(rag, dsn):
    await rag.insert("api_token", [token("t1", SECRET), token("t1", "ragflow-" + "T" * 32)])
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        await run_import(svc, rag)
        await rag.execute(f"UPDATE api_token SET beta = '{BETA}' WHERE token = '{SECRET}'")
        report, _ = await run_import(svc, rag)
        assert (report.tokens.imported, report.tokens.present) == (1, 2)
        tokens = ragflow.APITokenService(svc, tenant_id="t1")
        (row,) = [each for each in await tokens.get_all() if each.beta]
        assert row.beta == BETA[: len(row.beta)]
        assert await tokens.filter_delete([ragflow.APIToken.token == SECRET]) == 1
        with pytest.raises(InvalidToken):
            await svc.tokens.verify(BETA, kind="beta")


async def test_each_beta_knows_its_own_row(rag, dsn):
    secrets = [SECRET[:-1] + n for n in "1234"]
    betas = [n * 32 for n in "abcd"]
    await rag.insert(
        "api_token",
        [token("t1", secret, beta=beta, create_time=CREATED if at < 2 else None)
         for at, (secret, beta) in enumerate(zip(secrets, betas, strict=True))]
        + [token("t1", "", beta="e" * 32), token("t1", "weak", beta="f" * 32)],
    )  # fmt: skip
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        report, _ = await run_import(svc, rag)
        assert report.tokens == TableReport(read=11, imported=10, skipped={Skip.WEAK: 1})
        for secret, beta in zip(secrets, betas, strict=True):
            owner = await svc.tokens.verify(secret)
            verified = await svc.tokens.verify(beta, kind="beta")
            assert (owner.metadata, verified.metadata) == ({}, {"ragflow": {"row": owner.id}})
        for beta in ("e" * 32, "f" * 32):
            assert (await svc.tokens.verify(beta, kind="beta")).metadata == {}


async def test_a_second_import_replaces_betas(rag, dsn):
    other = "ragflow-" + "T" * 32
    await rag.insert("api_token", [token("t1", SECRET, beta=BETA), token("t1", other)])
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        await run_import(svc, rag)
        await rag.execute(f"UPDATE api_token SET beta = '{'n' * 32}' WHERE token = '{SECRET}'")
        await rag.execute(f"UPDATE api_token SET beta = '{'o' * 32}' WHERE token = '{other}'")
        await svc.tokens.revoke((await svc.tokens.verify(other)).id, tenant_id="t1")
        for dry_run in (True, False):
            report, notes = await run_import(svc, rag, dry_run=dry_run)
            assert report.tokens == TableReport(
                read=4, imported=1, present=2, skipped={Skip.REVOKED: 1}
            )
            assert notes[0].reason == "its token is not valid here any more"
        assert (await svc.tokens.verify("n" * 32, kind="beta")).status == "active"
        for secret in (BETA, "o" * 32):
            with pytest.raises(InvalidToken):
                await svc.tokens.verify(secret, kind="beta")
        # A token that was replaced in asyncsvc is not restored, although the source still has it.
        tokens = ragflow.APITokenService(svc, tenant_id="t1")
        await tokens.filter_update([ragflow.APIToken.token == SECRET], {"beta": "p" * 32})
        report, _ = await run_import(svc, rag)
        assert (report.tokens.imported, report.tokens.present) == (0, 3)
        assert (await svc.tokens.verify("p" * 32, kind="beta")).status == "active"


async def test_a_second_import_revokes_tokens_that_were_revoked_in_ragflow(rag, dsn):
    others = ["ragflow-" + n * 32 for n in "UV"]
    await rag.insert(
        "api_token",
        [token("t1", SECRET, beta=BETA), *(token("t1", other, beta=None) for other in others)],
    )
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        await run_import(svc, rag)
        tokens = ragflow.APITokenService(svc, tenant_id="t1")
        await tokens.filter_update([ragflow.APIToken.token == others[0]], {"beta": "u" * 32})
        await rag.execute(f"UPDATE api_token SET status = '0' WHERE token <> '{others[1]}'")
        for dry_run in (True, False):
            report, notes = await run_import(svc, rag, dry_run=dry_run)
            assert (report.tokens, notes) == (TableReport(read=4, updated=3, present=1), [])
        for secret, kind in ((SECRET, "api"), (BETA, "beta"), ("u" * 32, "beta")):
            with pytest.raises(InvalidToken):
                await svc.tokens.verify(secret, kind=kind)
        over = [
            each for each in (await svc.tokens.get_list(tenant_id="t1")).items if each.revoked_at
        ]
        assert {each.revoked_reason for each in over} == {"revoked in RAGFlow"}
        assert (await svc.tokens.verify(others[1])).status == "active"
        report, _ = await run_import(svc, rag)
        assert report.tokens == TableReport(read=4, present=1, skipped={Skip.REVOKED: 3})


async def test_imported_tokens_are_valid(rag, dsn, pool):
    await rag.insert(
        "api_token",
        [
            token("t1", SECRET, dialog_id="d1", source="agent", beta=BETA),
            token("t2", SECRET),
            token("t2", "guessme"),
            token("t2", "R" * 40, status="0", beta="B" * 32),
            token("t2", "naïve secret with spaces, and more"),
            token("t3", "S" * 40, create_time=None),
        ],
    )
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        report, notes = await run_import(svc, rag, actor="ann")
        verified = await svc.tokens.verify(SECRET)
        assert (verified.tenant_id, verified.dialog_id, verified.source) == ("t1", "d1", "agent")
        assert (verified.created_at, verified.created_by) == (CREATED_AT, "ann")
        beta = await svc.tokens.verify(BETA, kind="beta")
        assert (beta.tenant_id, beta.kind) == ("t1", "beta")
        for secret in (BETA, "guessme", "R" * 40, "B" * 32):
            with pytest.raises(InvalidToken):
                await svc.tokens.verify(secret)
        assert (await svc.tokens.verify("S" * 40)).tenant_id == "t3"
    assert report.tokens == TableReport(
        read=8,
        imported=3,
        skipped={Skip.TAKEN: 1, Skip.WEAK: 1, Skip.REVOKED: 2, Skip.REJECTED: 1},
    )
    named = {note.kind: note.row for note in notes if note.table == "api_token"}
    assert named[Skip.TAKEN].endswith(", token ragflow-Zk9_…")
    assert named[Skip.TAKEN].startswith("t2, row ")
    assert named[Skip.WEAK].endswith(", token …")
    text = "".join(f"{note.row}{note.reason}" for note in notes)
    for secret in (SECRET, BETA, "guessme", "R" * 40, "naïve"):
        assert secret not in text
    stored = await pool.fetch("SELECT t::text FROM asyncsvc.api_token AS t")
    assert not any(secret in row["t"] for row in stored for secret in (SECRET, BETA))


async def test_without_the_setting_no_token_is_imported(rag, svc):
    await rag.insert("api_token", [token("t1", SECRET)])
    report, notes = await run_import(svc, rag)
    assert report.tokens == TableReport(read=1, skipped={Skip.REJECTED: 1})
    assert "accept_foreign_tokens" in notes[0].reason


async def test_tokens_of_all_pages_are_imported(rag, dsn, monkeypatch):
    monkeypatch.setattr(source, "_PAGE_ROWS", 3)
    secrets = [(f"t{at % 3}", f"{at:02}" * 20) for at in range(20)]
    await rag.insert("api_token", [token(*each) for each in secrets])
    async with asyncsvc.connect(dsn, settings=FOREIGN) as svc:
        report, _ = await run_import(svc, rag)
        assert report.tokens == TableReport(read=20, imported=20)
        for tenant_id, secret in secrets:
            assert (await svc.tokens.verify(secret)).tenant_id == tenant_id


# --- the command


async def test_the_command_prints_a_report_and_notes(rag, run, svc):
    await fill(
        rag,
        session("a", talk("p", "q")), session("b", dsl=json.dumps(json.dumps({"x": 1}))),
        session("c", dialog_id="gone"), session("d", dsl=["x" * 2**23]),
    )  # fmt: skip
    await rag.insert("api_token", [token("t1", SECRET), token("t2", SECRET)])
    finished = run(rag.dsn, "--actor", "ann")
    assert finished.returncode == 3
    assert finished.stderr == (
        "api_4_conversation c: no_tenant: its dialog or agent was deleted; --orphans sets the"
        " tenant of such rows\n"
        "api_4_conversation d: lost: dsl\n"
        "api_token t2, row 2, token ragflow-Zk9_…: taken: another token has this secret\n"
        "Tokens are valid where Settings.accept_foreign_tokens is on.\n"
    )
    assert re.search(r"conversations +4 +3 +0 +0 +1 *$", finished.stdout, re.MULTILINE)
    assert re.search(r"tokens +2 +1 +0 +0 +1 *$", finished.stdout, re.MULTILINE)
    assert re.search(r"no_tenant +1 conversation skipped *$", finished.stdout, re.MULTILINE)
    assert re.search(r"taken +1 token skipped *$", finished.stdout, re.MULTILINE)
    assert re.search(r"messages +2 imported", finished.stdout)
    assert re.search(r"json_in_json +1 conversation repaired: b *$", finished.stdout, re.MULTILINE)
    assert SECRET not in finished.stdout + finished.stderr
    report = json.loads(run(rag.dsn, "--json", "--only", "tokens").stdout)
    assert report["tokens"] == {
        "read": 2, "imported": 0, "updated": 0, "present": 1, "skipped": {"taken": 1},
    }  # fmt: skip
    tried = run("--dry-run", "--orphans", "t9", "--verbose", ASYNCSVC_RAGFLOW_DSN=rag.dsn)
    assert tried.returncode == 3
    assert "dry run" in tried.stderr
    assert "api_4_conversation b: json_in_json: dsl\n" in tried.stderr
    assert await exported(svc, "t9") == []


def test_the_report_fits_80_columns(capsys, monkeypatch):
    number = 1_234_567
    moved = TableReport(read=number, imported=number, updated=number, present=number,
                  skipped=dict.fromkeys(Skip, number))  # fmt: skip
    repaired = RepairCount(rows=number, ids=tuple(f"{at}" * 32 for at in range(5)))
    report = DataImportReport(
        dry_run=False, total=number, conversations=moved, messages=number, tokens=moved,
        repaired=dict.fromkeys(Repair, repaired), skipped_tables=("api_token",),
        missing=("x.y",) * 20, after=None,
    )  # fmt: skip
    monkeypatch.setenv("COLUMNS", "80")
    console.cache_clear()
    ragflow_import.print_report(report)
    console.cache_clear()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 80
    titles = re.split(r"  +", lines[0].strip())
    assert titles == ["read", "imported", "updated", "present", "skipped"]
    assert re.split(r" +", lines[2].strip()) == [
        "conversations", *[f"{number:,}"] * 4, f"{number * len(Skip):,}",
    ]  # fmt: skip
    shown = {line.split()[0]: line for line in lines[4:]}
    for kind in Skip:
        assert f"{number:,} conversations and {number:,} tokens skipped" in shown[kind]
    for id in repaired.ids:
        assert any(id in line for line in lines)


async def test_no_password_is_printed(rag, run):
    parts = rag.dsn.partition("://")
    user, _, rest = parts[2].partition(":")
    host = rest.rpartition("@")[2]
    wrong = f"{parts[0]}://{user}:sesame-7@{host}"
    if rag.dialect == "mysql":  # the PostgreSQL of the tests may accept any password
        error = failed(run(wrong))
        assert "the source: Access denied for user 'ragflow'" in error
        assert "sesame" not in error
    closed = f"{parts[0]}://u:sesame-7@127.0.0.1:1/x"
    error = failed(run(closed))
    assert "the source: " in error
    assert "sesame" not in error
    assert "reached" in error


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("mysql://u:se/same@127.0.0.1/x", "must be mysql://user:password@host:port/database"),
        ("mysql://u:se#same@127.0.0.1/x", "must be mysql://user"),
        ("mysql://u:1/same@127.0.0.1/x", "must be mysql://user"),
        ("mysql://u:same@127.0.0.1", "must be mysql://user"),
        ("mysql://u:same@127.0.0.1/x?charset=latin1", "takes the options ssl-ca and ssl-mode"),
        (
            "mysql://u:same@127.0.0.1/x?ssl-mode=maybe",
            "takes the options ssl-ca and ssl-mode, one of disabled",
        ),
        ("mysql://u:same@127.0.0.1/x?ssl-ca=/nowhere", "ssl-ca: No such file"),
        ("postgresql://u:same@127.0.0.1:port/x", "must be a PostgreSQL URL"),
        ("postgresql://u:same@127.0.0.1/x?sslmode=same", "the parameter sslmode: must be one"),
        ("oracle://u:same@h/x", "must be a URL that begins with mysql:// or postgresql://"),
        ("same", "must be a URL"),
    ],
)
async def test_an_invalid_url_is_rejected_without_quoting_it(svc, url, reason):
    with pytest.raises(InvalidInput) as caught:
        await run_import(svc, url)
    assert str(caught.value).startswith(f"source: {reason}")
    assert "same" not in str(caught.value)
    trace = "".join(traceback.format_exception(caught.value))
    assert "same" not in trace.replace(f'run_import(svc, "{url}")', "")


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tz": "Mars/X"}, "tz"),
        ({"orphans": ""}, "orphans"),
        ({"tenant_id": "x" * 200}, "tenant_id"),
        ({"only": "dialogs"}, "only"),
        ({"after": "\0"}, "after"),
        ({"actor": 5}, "actor"),
    ],
)
async def test_invalid_options_are_named(svc, options, field):
    with pytest.raises(InvalidInput) as caught:
        await run_import(svc, "mysql://u@127.0.0.1:1/x", **options)
    assert caught.value.field == field


async def test_schemes_with_a_driver_are_accepted(databases, svc):
    rag = await create_source(databases, "mysql")
    await fill(rag, session("a"))
    for scheme in ("mysql+pymysql", "mariadb", "MySQL"):
        report, _ = await run_import(svc, f"{scheme}{rag.dsn.removeprefix('mysql')}")
        assert report.conversations.read == 1
    rag = await create_source(databases, "postgresql")
    for scheme in ("postgresql+psycopg2", "postgres"):
        report, _ = await run_import(svc, rag.dsn.replace("postgresql", scheme))
        assert report.conversations.read == 0


async def test_the_url_controls_the_encryption_of_mysql(databases, mariadb):
    rag = await create_source(databases, "mysql")
    own = f"ssl-ca={mariadb.certificate}"
    for options, is_encrypted in (
        ("", True), ("?ssl-mode=required", True), ("?ssl-mode=disabled", False),
        (f"?{own}", True), (f"?ssl-mode=VERIFY_IDENTITY&{own}", True),
    ):  # fmt: skip
        async with source.open_source(rag.dsn + options) as opened:
            query = sql_files.Query("x", "SHOW STATUS LIKE 'Ssl_cipher'", ())
            (row,) = await opened._connection.fetch(query)
            assert (options, row["Value"] != "") == (options, is_encrypted)
    elsewhere = rag.dsn.replace("127.0.0.1", "localhost")
    for dsn in (
        f"{rag.dsn}?ssl-mode=verify_ca",
        f"{rag.dsn}?ssl-mode=verify_identity",
        f"{elsewhere}?ssl-mode=verify_identity&{own}",
    ):
        with pytest.raises(Unavailable, match=r"the source: .*certificate verify failed"):
            async with source.open_source(dsn):
                pass


async def test_a_missing_driver_is_named(svc, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(InvalidInput, match=r"pip install 'asyncsvc\[ragflow\]'"):
        await run_import(svc, "mysql://u:p@127.0.0.1/x")


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
@pytest.mark.parametrize(
    "greeting",
    [
        b"",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 400 \r\n\r\n",
        b"\5\0\0\0hello",
        b"\0\0\0\0",
        b"\x0a\0\0\0\n8\0",
    ],
)
async def test_a_port_of_another_protocol_is_unavailable(svc, monkeypatch, scheme, greeting):
    monkeypatch.setattr(drivers, "_CONNECT_SECONDS", 0.5)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        began = time.monotonic()
        with pytest.raises((Unavailable, DatabaseError), match="the source: "):
            await asyncio.wait_for(run_import(svc, f"{scheme}://u:p@127.0.0.1:{port}/x"), 10)
    assert time.monotonic() - began < 5


# --- failures of the source


async def test_a_cancellation_ends_a_running_statement(rag):
    sleep = "SELECT sleep(30)" if rag.dialect == "mysql" else "SELECT pg_sleep(30)"
    for options in ("", "?ssl-mode=disabled") if rag.dialect == "mysql" else ("",):
        async with source.open_source(rag.dsn + options) as opened:
            began = time.monotonic()
            waiting = asyncio.create_task(opened._connection.fetch(sql_files.Query("x", sleep, ())))
            await asyncio.sleep(0.3)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert time.monotonic() - began < 5


async def test_a_lost_source_is_named_and_stored_rows_remain(rag, svc, monkeypatch):
    monkeypatch.setattr(source, "_PAGE_ROWS", 2)
    await fill(rag, *(session(f"{at}", talk("p")) for at in range(6)))
    reports = []

    def cut(report) -> None:
        reports.append(report)
        if report.conversations.read == 2:
            hang_up(rag)

    with pytest.raises(Unavailable, match="the source: "):
        await DataImport(svc).run(rag.dsn, on_batch=cut)
    assert reports[-1].after == "1"
    assert [item.id for item in await exported(svc, "t1")] == ["0", "1"]
    report, _ = await run_import(svc, rag, after=reports[-1].after)
    assert report.conversations == TableReport(read=4, imported=4)


def hang_up(rag: Database) -> None:
    """End all other sessions of the source's database."""
    if rag.dialect == "mysql":
        with mysql(rag.dsn) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT id FROM information_schema.processlist"
                           " WHERE db = database() AND id <> connection_id()")  # fmt: skip
            for (id,) in cursor.fetchall():
                cursor.execute(f"KILL {id}")
        return
    command = (
        "import asyncio, asyncpg, sys\n"
        "async def main():\n"
        "    connection = await asyncpg.connect(sys.argv[1])\n"
        "    await connection.execute('SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()')\n"
        "asyncio.run(main())"
    )
    subprocess.run([sys.executable, "-c", command, rag.dsn], check=True, timeout=SECONDS)


# --- the statements


def statements() -> list[str]:
    return sorted(
        f"ragflow/{file.name.removesuffix('.sql')}"
        for file in (sql_files.root() / "ragflow").iterdir()
    )


def test_statements_for_the_source_are_not_statements_of_a_repository():
    assert not set(statements()) & set(sql_files.names())


PARTS = {"count", "sizes", "rows"}


def forms(name: str, dialect: str) -> Iterator[frozenset[str]]:
    """Yield the variants of a statement that a dialect uses."""
    others = {"mysql", "postgresql", "mixed", "owners", "after_token", *PARTS}
    for present in {each - others for each in variants(sql_files.load(name))}:
        if name == "ragflow/conversations":
            needs_owners = {"owners"} if "tenant_id" in present else set()
            yield present | {"count", dialect} | needs_owners
            yield present | {"sizes", dialect} | needs_owners
            yield present | {"rows", dialect, "owners"}
            if dialect == "mysql":
                yield present | {"rows", dialect, "owners", "mixed"}
        elif "after_tenant" in present:
            yield present | {"after_token", dialect}
        else:
            yield present | {dialect}


async def test_every_statement_runs_in_every_variant(rag):
    async with source.open_source(rag.dsn) as opened:
        assert opened._columns.keys() == set(TABLES)
        for name in statements():
            statement = sql_files.load(name)
            if name == "ragflow/read_only" and rag.dialect == "postgresql":
                continue
            for present in forms(name, rag.dialect):
                if name == "ragflow/tokens" and "name" in present:  # not in these tables
                    continue
                values = {
                    parameter: 5 if parameter == "limit" else "x"
                    for parameter in (statement.optional & present) | statement.required
                }
                query = statement.bind(present & statement.flags, values)
                await opened._connection.fetch(query)


async def test_pages_are_read_by_the_primary_key(databases):
    rag = await create_source(databases, "mysql")
    await fill(rag, *(session(f"{at:05}") for at in range(2_000)))
    await rag.execute("ANALYZE TABLE api_4_conversation")
    await rag.insert("api_token", [token(f"t{at % 5}", f"{at:040}") for at in range(2_000)])
    await rag.execute("ANALYZE TABLE api_token")
    tenant, after = {"tenant_id": "t1"}, {"after": "01000"}
    behind = {"after_tenant": "t1", "after_token": f"{1_000:040}"}
    for name, flags, values in (
        ("conversations", {"sizes", "reference", "dsl"}, after),
        ("conversations", {"sizes", "owners", "agents", "orphans", "mysql"}, after | tenant),
        ("conversations", {"rows", "owners", "agents", "mysql"}, after | {"last": "01500"}),
        ("tokens", {"mysql"}, behind),
        ("tokens", {"mysql"}, behind | tenant),
    ):
        query = sql_files.load(f"ragflow/{name}").bind(flags, values | {"limit": 10})
        text = query.text
        for number, value in reversed(list(enumerate(query.arguments, 1))):
            text = text.replace(f"${number}", repr(value))
        plan = await rag.execute(f"EXPLAIN {text}")
        assert plan[0][3:6:2] == ("range", "PRIMARY"), values


def test_the_driver_is_imported_only_for_a_source():
    code = (
        "import asyncsvc.cli.app, asyncsvc.ragflow.data_import, sys;"
        " print('pymysql' in sys.modules)"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout == "False\n"
    assert drivers.Connection
