"""`examples/chat_app` over HTTP."""

import asyncio
import contextlib
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio
import uvicorn

import asyncsvc
from asyncsvc import AsyncSvc
from examples.chat_app.app import MAX_BODY_BYTES, app
from tests.support.citus import execute
from tests.support.wire import Wire

FOLDER = pathlib.Path(__file__).parents[2] / "examples" / "chat_app"
PROBLEM = "application/problem+json"
METHODS = {"get", "put", "post", "delete", "patch"}
WRITERS = 16
SECONDS = 120

Visit = Callable[..., AbstractAsyncContextManager["ChatClient"]]


@contextlib.asynccontextmanager
async def serving(dsn: str) -> AsyncIterator[str]:
    """Run the service on a database, in a thread and on a port of its own; yield its URL."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="on")
    )
    thread = threading.Thread(target=server.run)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASYNCSVC_DSN", dsn)
        thread.start()
        while thread.is_alive() and not server.started:
            await asyncio.sleep(0.01)
    assert server.started
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)


class ChatClient(httpx.AsyncClient):
    """A client with a tenant's token, and with the library on the same database."""

    def __init__(self, url: str, secret: str, tenant: str, token_id: str, svc: AsyncSvc):
        super().__init__(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=60)
        self.tenant = tenant
        self.token_id = token_id
        self.secret = secret
        self.svc = svc

    async def create(self, id: str = "a", **fields: object) -> dict[str, object]:
        return succeeded(await self.post("/conversations", json={"id": id, **fields}), 201)

    async def ask(self, question: str, *, id: str = "a", key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        path = f"/conversations/{id}/turns"
        return await self.post(path, json={"question": question}, headers=headers)

    async def messages(self, id: str = "a", **params: object) -> list[tuple[int, str, str]]:
        stored = succeeded(await self.get(f"/conversations/{id}/messages", params=params))
        return [(each["seq"], each["role"], each["content"]) for each in stored]


@contextlib.asynccontextmanager
async def visiting(
    url: str, dsn: str, tenant: str, scopes: tuple[str, ...]
) -> AsyncIterator[ChatClient]:
    async with asyncsvc.connect(dsn) as svc:
        issued = await svc.tokens.create(tenant_id=tenant, name="test", scopes=scopes)
        secret = issued.secret.get_secret_value()
        async with ChatClient(url, secret, tenant, issued.token.id, svc) as visitor:
            yield visitor


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def url(shared_dsns: tuple[str, str]) -> AsyncIterator[str]:
    async with serving(shared_dsns[0]) as url:
        yield url


@pytest.fixture
def visit(url, shared_dsns, numbers) -> Visit:
    """Open a client with a token of the named tenant, or of a new tenant."""

    def visit(tenant: str | None = None, *scopes: str):
        tenant = tenant or f"tenant {next(numbers)}"
        return visiting(url, shared_dsns[0], tenant, scopes or ("chat",))

    return visit


@pytest_asyncio.fixture
async def ann(visit) -> AsyncIterator[ChatClient]:
    async with visit() as ann:
        yield ann


def succeeded(answer: httpx.Response, status: int = 200):
    """Return the body of a successful response."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def rejected(answer: httpx.Response, status: int, kind: str | None = None) -> str:
    """Return the detail of a problem; `kind` is the name of the library's error.

    Its default is that of a problem which FastAPI detects.
    """
    if status == 422:
        kind = kind or "InvalidInput"
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    body = answer.json()
    assert body["type"] == (f"urn:example:chat:{kind}" if kind else "about:blank")
    assert body["status"] == status
    assert body["title"]
    assert set(body) <= {"type", "title", "status", "detail", "errors", "code", "budget"}
    assert ("errors" in body) == (kind == "InvalidInput")
    return body.get("detail", "")


# ------------------------------------------------------------------------------ operations


async def test_a_user_creates_asks_searches_and_deletes(ann):
    created = await ann.create("parcel", user_id="ann", name="A parcel")
    assert (created["id"], created["user_id"], created["name"]) == ("parcel", "ann", "A parcel")

    answer = succeeded(await ann.ask("Where is my parcel?", id="parcel", key="1"))
    assert answer == {
        "answer": "You said: Where is my parcel?",
        "first_seq": 1, "last_seq": 2, "round": 1, "replayed": False,
    }  # fmt: skip
    again = await ann.ask("Where is my parcel?", id="parcel", key='"1"')
    assert succeeded(again) == answer | {"replayed": True}
    assert again.headers["idempotent-replayed"] == "true"
    succeeded(await ann.ask("No, the other one", id="parcel"))

    assert await ann.messages("parcel", limit=3) == [
        (1, "user", "Where is my parcel?"),
        (2, "assistant", "You said: Where is my parcel?"),
        (3, "user", "No, the other one"),
    ]
    assert await ann.messages("parcel", after=3) == [
        (4, "assistant", "You said: No, the other one")
    ]
    assert await ann.messages("parcel", after=4) == []

    hits = succeeded(await ann.get("/search", params={"keywords": "THE OTHER"}))
    assert [(hit["id"], hit["seq"], hit["snippet"]) for hit in hits["items"]] == [
        ("parcel", 3, "No, the other one")
    ]
    message = succeeded(await ann.put("/conversations/parcel/thumbs/2", json={"thumb": 1}))
    assert (message["seq"], message["thumb"], message["payload"]) == (2, 1, {})

    today = datetime.now(UTC).date()
    period = {"from_date": str(today - timedelta(days=1)), "to_date": str(today)}
    _, day = succeeded(await ann.get("/statistics", params=period))
    assert (day["conversations"], day["users"], day["rounds"], day["thumb_up"]) == (1, 1, 2, 1)
    assert day["tokens"] == 4 + 6 + 4 + 6
    (of_the_token,) = await ann.svc.conversations.stats(
        tenant_id=ann.tenant,
        from_date=today,
        to_date=today,
        basis="activity",
        token_id=ann.token_id,
    )
    assert of_the_token.tokens == day["tokens"]

    (listed,) = succeeded(await ann.get("/conversations"))["items"]
    assert (listed["id"], listed["last_seq"], listed["thumb_up"]) == ("parcel", 4, 1)
    assert (
        succeeded(await ann.put("/conversations/parcel/thumbs/2", json={"thumb": None}))["thumb"]
        is None
    )

    deleted = await ann.delete("/conversations/parcel")
    assert (deleted.status_code, deleted.content) == (204, b"")
    rejected(await ann.delete("/conversations/parcel"), 404, "NotFound")
    assert succeeded(await ann.get("/conversations")) == {
        "total": None,
        "items": [],
        "next": None,
        "total_capped": False,
    }


async def test_lists_return_all_items_by_cursor(ann):
    for number in range(7):
        await ann.create(f"c{number}")
        succeeded(await ann.ask("parcel", id=f"c{number}"))
    expected = [f"c{number}" for number in reversed(range(7))]
    for path, params in (("/conversations", {}), ("/search", {"keywords": "parcel"})):
        ids, after = [], {}
        while True:
            page = succeeded(await ann.get(path, params={"limit": 3, **params, **after}))
            ids += [item["id"] for item in page["items"]]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
        assert ids == expected


async def test_json_values_are_returned_as_json(ann):
    metadata = {"channel": {"name": "web", "tags": ["a", 1, None]}}
    await ann.svc.conversations.create(
        tenant_id=ann.tenant, dialog_id="assistant", id="a", metadata=metadata
    )
    message = asyncsvc.Message(role="tool", content="x", payload=metadata, reference=[1, {"b": 2}])
    await ann.svc.conversations.append_message("a", {"messages": [message]}, tenant_id=ann.tenant)
    (listed,) = succeeded(await ann.get("/conversations"))["items"]
    assert listed["metadata"] == metadata
    (stored,) = succeeded(await ann.get("/conversations/a/messages"))
    assert (stored["payload"], stored["reference"]) == (metadata, [1, {"b": 2}])


# ---------------------------------------------------------------------------- concurrency


async def test_16_clients_of_one_conversation_lose_no_turn(ann, visit):
    await ann.create()

    async def ask(number: int) -> None:
        async with visit(ann.tenant) as client:
            for turn in range(5):
                answer = succeeded(
                    await client.ask(f"question {number}.{turn}", key=f"{number}.{turn}")
                )
                assert answer["replayed"] is False

    await asyncio.gather(*(ask(number) for number in range(WRITERS)))
    turns = WRITERS * 5
    stored = await ann.messages(limit=100) + await ann.messages(limit=100, after=100)
    assert [seq for seq, _, _ in stored] == list(range(1, 2 * turns + 1))
    questions = [content for _, role, content in stored if role == "user"]
    assert sorted(questions) == sorted(
        f"question {n}.{t}" for n in range(WRITERS) for t in range(5)
    )
    assert [content for _, _, content in stored[1::2]] == [f"You said: {it}" for it in questions]
    (listed,) = succeeded(await ann.get("/conversations"))["items"]
    assert (listed["round"], listed["last_seq"]) == (turns, 2 * turns)


async def test_16_concurrent_requests_with_one_key_append_one_turn(ann):
    await ann.create()
    answers = [
        succeeded(answer)
        for answer in await asyncio.gather(*(ann.ask("one", key="k") for _ in range(WRITERS)))
    ]
    assert sum(not answer.pop("replayed") for answer in answers) == 1
    assert all(answer == answers[0] for answer in answers)
    assert [seq for seq, _, _ in await ann.messages()] == [1, 2]


async def test_a_key_of_another_turn_and_a_used_id_are_conflicts(ann):
    await ann.create()
    succeeded(await ann.ask("one", key="k"))
    rejected(await ann.ask("two", key="k"), 422, "IdempotencyConflict")
    rejected(await ann.post("/conversations", json={"id": "a"}), 409, "AlreadyExists")
    assert len(await ann.messages()) == 2


# --------------------------------------------------------------------------- authorization


async def test_ids_of_another_tenant_are_like_absent_ids(ann, visit):
    await ann.create("hers", user_id="ann")
    succeeded(await ann.ask("Where is my parcel?", id="hers"))
    async with visit(None, "chat", "admin") as bob:
        for method, path, body in (
            ("GET", "/conversations/{}/messages", None),
            ("POST", "/conversations/{}/turns", {"question": "x"}),
            ("PUT", "/conversations/{}/thumbs/1", {"thumb": 1}),
            ("DELETE", "/conversations/{}", None),
            ("DELETE", "/tokens/{}", None),
        ):
            hers = ann.token_id if "tokens" in path else "hers"
            existing = await bob.request(method, path.format(hers), json=body)
            absent = await bob.request(method, path.format("absent"), json=body)
            assert rejected(existing, 404, "NotFound") == rejected(absent, 404, "NotFound")
        assert succeeded(await bob.get("/conversations"))["items"] == []
        assert succeeded(await bob.get("/search", params={"keywords": "parcel"}))["items"] == []
        period = dict.fromkeys(["from_date", "to_date"], str(datetime.now(UTC).date()))
        assert [
            day["conversations"] for day in succeeded(await bob.get("/statistics", params=period))
        ] == [0]
        await bob.create("hers")  # the id is free in his tenant
    assert len(await ann.messages("hers")) == 2
    assert succeeded(await ann.get("/conversations"))["items"][0]["thumb_up"] == 0


async def test_a_revoked_token_is_rejected_immediately(ann):
    revoked = succeeded(await ann.delete("/tokens/current"))
    assert (revoked["id"], revoked["status"]) == (ann.token_id, "revoked")
    assert "secret" not in revoked
    answer = await ann.get("/conversations")
    rejected(answer, 401, "InvalidToken")
    assert answer.headers["www-authenticate"].startswith("Bearer")
    (event, _) = (await ann.svc.tokens.audit(tenant_id=ann.tenant)).items
    assert (event.action, event.actor) == ("revoke", ann.token_id)


async def test_only_the_scope_admin_allows_to_revoke_other_tokens(ann, visit):
    async with visit(ann.tenant) as other, visit(ann.tenant, "chat", "admin") as admin:
        answer = await other.delete(f"/tokens/{ann.token_id}")
        rejected(answer, 403, "InsufficientScope")
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
        succeeded(await ann.get("/conversations"))
        assert succeeded(await admin.delete(f"/tokens/{ann.token_id}"))["status"] == "revoked"
        rejected(await ann.get("/conversations"), 401, "InvalidToken")
        succeeded(await other.get("/conversations"))
        rejected(await admin.delete("/tokens/absent"), 404, "NotFound")


async def test_a_token_without_the_scope_chat_is_rejected(visit):
    async with visit(None, "read") as reader:
        assert rejected(await reader.get("/conversations"), 403, "InsufficientScope") == (
            "the token lacks chat"
        )


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer  x", "Bearer x", "Basic YTpi", "Bearer \xff", "x" * 9_000],
)
async def test_a_request_without_a_valid_token_is_rejected(header, url):
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    async with httpx.AsyncClient(base_url=url) as anonymous:
        for method, path in operations():
            answer = await anonymous.request(method, path.format(id="a", seq=1), headers=headers)
            rejected(answer, 401, "InvalidToken")
            assert answer.headers["www-authenticate"].startswith("Bearer")


# --------------------------------------------------------------------------- invalid input


TURNS = "/conversations/a/turns"
BAD_BODIES = {
    "no body": (b"", 422),
    "no JSON": (b"{", 422),
    "no object": (b"[]", 422),
    "an unknown field": (b'{"question": "x", "surprise": 1}', 422),
    "an unknown field of a lone surrogate": (b'{"question": "x", "\\ud800": 1}', 422),
    "an unknown field of great length": (b'{"question": "x", "%s": 1}' % (b"k" * 99_999), 422),
    "many unknown fields": (json.dumps(dict.fromkeys(map(str, range(8_000)))).encode(), 422),
    "a wrong type": (b'{"question": 1}', 422),
    "an empty text": (b'{"question": ""}', 422),
    "a text that is too long": (b'{"question": "%s"}' % (b"x" * 10_001), 422),
    "a NUL": (b'{"question": "a\\u0000b"}', 422),
    "a lone surrogate": (b'{"question": "a\\ud800b"}', 422),
    "a number of too many digits": (b'{"question": 1%s}' % (b"0" * 5_000), 400),
    "text that is no UTF-8": (b'{"question": "\xff"}', 400),
    "deep JSON": (b'{"question": %s}' % (b"[" * 100_000), 400),
    "a huge body": (b'{"question": "%s"}' % (b"x" * MAX_BODY_BYTES), 413),
}


@pytest.mark.parametrize(("content", "status"), BAD_BODIES.values(), ids=BAD_BODIES)
async def test_an_invalid_body_is_rejected_and_stores_nothing(content, status, ann):
    await ann.create()
    json_type = {"Content-Type": "application/json"}
    answer = await ann.post(TURNS, content=content, headers=json_type)
    detail = rejected(answer, status)
    assert len(answer.content) < 2_000
    if status == 422:
        assert detail.startswith("body")
    assert await ann.messages() == []


async def test_many_unknown_fields_are_one_error(ann):
    unknown = dict.fromkeys(map(str, range(8_000)))
    assert (
        rejected(await ann.post(TURNS, json=unknown), 422) == "body: Value error, too many fields"
    )


async def test_a_body_without_a_length_is_rejected(ann):
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 2**16

    await ann.create()
    rejected(await ann.post(TURNS, content=chunks()), 413)
    succeeded(await ann.ask("the connection is still usable"))


async def test_a_body_with_another_content_type_is_rejected(ann):
    await ann.create()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/xml", "x"):
        headers = {"Content-Type": kind}
        rejected(await ann.post(TURNS, content=b'{"question": "x"}', headers=headers), 422)


@pytest.mark.parametrize(
    ("path", "params", "field"),
    [
        ("/conversations", {"limit": "0"}, "query.limit"),
        ("/conversations", {"limit": "101"}, "query.limit"),
        ("/conversations", {"limit": "ten"}, "query.limit"),
        ("/conversations", {"limit": "9" * 5_000}, "query.limit"),
        ("/conversations", {"after": "x"}, "after"),
        ("/conversations", {"after": "\x00\ud7ff"}, "after"),
        ("/conversations", {"after": "x" * 4_096}, "query.after"),
        ("/search", {}, "query.keywords"),
        ("/search", {"keywords": ""}, "query.keywords"),
        ("/search", {"keywords": "a\x00b"}, "query.keywords"),
        ("/search", {"keywords": "x" * 101}, "query.keywords"),
        ("/search", {"keywords": "x", "after": "x"}, "after"),
        ("/conversations/a/messages", {"after": "-1"}, "query.after"),
        ("/conversations/a/messages", {"after": str(2**31)}, "query.after"),
        ("/conversations/a%00b/messages", {}, "path.id"),
        (f"/conversations/{'a' * 129}/messages", {}, "path.id"),
        ("/statistics", {}, "query.from_date"),
        ("/statistics", {"from_date": "x", "to_date": "2026-01-01"}, "from_date"),
        ("/statistics", {"from_date": "2026-02-30", "to_date": "2026-03-01"}, "from_date"),
        ("/statistics", {"from_date": "2026-01-02", "to_date": "2026-01-01"}, "from_date"),
        ("/statistics", {"from_date": "0001-01-01", "to_date": "2026-01-01"}, "from_date"),
        ("/statistics", {"from_date": "1900-01-01", "to_date": "2026-01-01"}, "to_date"),
        ("/statistics", {"from_date": "2026-01-01", "to_date": "٢٠٢٦-01-01"}, "to_date"),
    ],
)
async def test_the_rejection_of_a_parameter_names_it(path, params, field, ann):
    answer = await ann.get(path, params=params)
    assert rejected(answer, 422).startswith(f"{field}: ")
    assert next(iter(answer.json()["errors"])) == field


@pytest.mark.parametrize("tz", ["", "Nowhere/Land", "../../etc/passwd", "CET", "Europe/\x00"])
async def test_an_unknown_zone_is_rejected(tz, ann):
    params = {"from_date": "2026-01-01", "to_date": "2026-01-01", "tz": tz}
    assert rejected(await ann.get("/statistics", params=params), 422).startswith("tz: ")


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
@pytest.mark.parametrize(
    ("used", "limit", "window", "shown"),
    [
        (1, 4, "hour", "0.25  an hour"),
        (4, 5, "day", "0.8 near a day"),
        (5, 5, "month", "1 spent a month"),
        (9, 5, "total", "1 spent in total"),
        (0, 0, "week", "1 spent a week"),
        (-5, 0, "week", "1 spent a week"),
        (-5, 5, "week", "0  a week"),
    ],
)
def test_a_bar_of_the_usage_page_shows_the_share_and_the_state(used, limit, window, shown):
    names = ("used", "share", "state", "periods", "period")
    lines = [
        line for line in (FOLDER / "usage.html").read_text("utf-8").splitlines()
        if line.startswith(tuple(f"    const {name} = " for name in names))
    ]  # fmt: skip
    budget = json.dumps({"used": str(used), "limit": str(limit), "window": window})
    program = "\n".join(
        [f"const budget = {budget};", *lines, "console.log(`${share} ${state} ${period}`)"]
    )
    finished = subprocess.run(
        ["node", "-e", program], capture_output=True, text=True, check=True, timeout=SECONDS
    )
    assert finished.stdout.strip() == shown


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node")
async def test_the_usage_page_requests_a_zone_that_the_service_accepts(ann):
    lines = [
        line for line in (FOLDER / "usage.html").read_text("utf-8").splitlines()
        if line.startswith(("const local = ", "const zone = "))
    ]  # fmt: skip
    zones = ["Europe/Berlin", "Etc/GMT+5", "UTC", "GMT", "EST5EDT", "UCT"]
    browser = "Intl.DateTimeFormat = () => ({{resolvedOptions: () => ({{timeZone: '{}'}})}});"
    accepted = [
        subprocess.run(
            ["node", "-e", "\n".join([browser.format(zone), *lines, "console.log(zone)"])],
            capture_output=True, text=True, check=True, timeout=SECONDS,
        ).stdout.strip()
        for zone in zones
    ]  # fmt: skip
    assert accepted == ["Europe/Berlin", "Etc/GMT+5", "UTC", "UTC", "UTC", "UTC"]
    for zone in accepted:
        params = {"from_date": "2026-01-01", "to_date": "2026-01-01", "tz": zone}
        assert len(succeeded(await ann.get("/statistics", params=params))) == 1


async def test_a_cursor_of_another_list_or_tenant_is_rejected(ann, visit):
    for id in ("a", "b"):
        await ann.create(id)
        succeeded(await ann.ask("x", id=id))
    cursor = succeeded(await ann.get("/conversations", params={"limit": 1}))["next"]
    search = {"keywords": "x", "after": cursor}
    rejected(await ann.get("/search", params=search), 422)
    async with visit() as bob:
        answer = await bob.get("/conversations", params={"after": cursor})
        rejected(answer, 422)


@pytest.mark.parametrize(
    "body", [{}, {"thumb": 0}, {"thumb": True}, {"thumb": "1"}, {"thumb": 1.5}]
)
async def test_invalid_feedback_is_rejected(body, ann):
    await ann.create()
    succeeded(await ann.ask("x"))
    rejected(await ann.put("/conversations/a/thumbs/2", json=body), 422)
    rejected(await ann.put("/conversations/a/thumbs/3", json={"thumb": 1}), 404, "NotFound")


@pytest.mark.parametrize(
    "body",
    [{"id": "a/b"}, {"id": ""}, {"id": "a" * 129}, {"name": "a\x00"}, {"user_id": 1}, {"x": 1}],
)
async def test_an_invalid_conversation_is_rejected(body, ann):
    rejected(await ann.post("/conversations", json=body), 422)
    assert succeeded(await ann.get("/conversations"))["items"] == []


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 256])
async def test_an_invalid_idempotency_key_is_rejected(key, ann):
    await ann.create()
    headers = [(b"Idempotency-Key", key.encode())]
    answer = await ann.post(TURNS, json={"question": "x"}, headers=headers)
    assert rejected(answer, 422).startswith("header.Idempotency-Key")


# ----------------------------------------------------------------------------------- errors


async def test_unknown_paths_and_methods_are_problems(ann):
    for path in (
        "/",
        "/nowhere",
        "/conversations/",
        "/conversations/a/b/c",
        "/conversations/a%2Fb",
    ):
        rejected(await ann.get(path), 404)
    for path, method, allowed in (
        ("/conversations", "DELETE", "GET, POST"),
        ("/conversations", "OPTIONS", "GET, POST"),
        ("/conversations/a", "GET", "DELETE"),
        (TURNS, "PUT", "POST"),
        ("/usage", "POST", "GET"),
    ):
        answer = await ann.request(method, path)
        rejected(answer, 405)
        assert answer.headers["allow"] == allowed


async def test_an_unreachable_database_is_a_503_until_it_is_reachable(dsn):
    async with (
        Wire(dsn) as wire,
        serving(wire.dsn) as url,
        visiting(url, dsn, "t", ("chat",)) as ann,
    ):
        await ann.create()
        wire.refuse_connections()
        wire.reset()
        answers = await asyncio.gather(
            ann.get("/conversations"), ann.ask("x", key="k"), ann.delete("/tokens/current")
        )
        for answer in answers:
            assert not rejected(answer, 503, "Unavailable")  # a client must not see the address
            assert int(answer.headers["retry-after"]) > 0
        assert (await ann.get("/usage")).status_code == 200
        await wire.accept_connections()
        assert succeeded(await ann.ask("x", key="k"))["last_seq"] == 2


async def test_a_server_error_shows_no_details_to_clients(dsn, caplog):
    async with serving(dsn) as url, visiting(url, dsn, "t", ("chat",)) as ann:
        await execute(dsn, "ALTER TABLE asyncsvc.message RENAME TO gone")
        await ann.create()
        answer = await ann.ask("x")
        assert rejected(answer, 500, "MigrationError") == ""
        assert "gone" not in answer.text
        await execute(dsn, "ALTER TABLE asyncsvc.gone RENAME TO message")
    assert f"{TURNS}: " in caplog.text


async def test_an_unexpected_error_is_a_problem_without_details(ann, visit, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the password is 1234")

    monkeypatch.setattr(asyncsvc.API4ConversationService, "search", fail)
    assert rejected(await ann.get("/search", params={"keywords": "x"}), 500) == ""
    async with visit(ann.tenant) as another:  # uvicorn closes the connection after such an error
        succeeded(await another.get("/conversations"))


# ---------------------------------------------------------------------------- the document


def operations() -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
    ]


def test_the_openapi_document_describes_every_operation():
    document = app.openapi()
    described = [each for path in document["paths"].values() for each in path.values()]
    assert len(described) == 10
    assert len({each["operationId"] for each in described}) == len(described)
    for each in described:
        assert each["tags"]
        assert each["summary"]
        assert each["description"]
        assert each["security"] == [{"HTTPBearer": ["chat"]}]
        errors = {status: it for status, it in each["responses"].items() if status >= "400"}
        assert {"401", "403", "422", "503"} <= set(errors)
        for error in errors.values():
            schema = {"$ref": "#/components/schemas/Problem"}
            assert error["content"] == {PROBLEM: {"schema": schema}}
            assert error["description"]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    schemas = document["components"]["schemas"]
    assert {"Problem", "Conversation", "StoredMessage", "Hit", "UsageBucket"} <= set(schemas)
    assert schemas["StoredMessage"]["properties"]["payload"]["type"] == "object"
    assert "HTTPValidationError" not in schemas


async def test_the_openapi_document_needs_no_token(url):
    async with httpx.AsyncClient(base_url=url) as anonymous:
        assert succeeded(await anonymous.get("/openapi.json")) == app.openapi()


# ------------------------------------------------------------------- the usage page, the README


async def test_the_usage_page_loads_nothing_from_other_hosts(url):
    async with httpx.AsyncClient(base_url=url) as anonymous:
        answer = await anonymous.get("/usage")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.text
    assert set(re.findall(r"https?://[^\"'\s<]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"""\b(src|href)=|@import|url\(|localStorage|document\.cookie""", page)
    assert "default-src 'none'; connect-src 'self'" in page
    (requested,) = re.findall(r"new URLSearchParams\(\{(.*?)\}\)", page, re.DOTALL)
    parameters = app.openapi()["paths"]["/statistics"]["get"]["parameters"]
    assert set(re.findall(r"(\w+):", requested)) == {each["name"] for each in parameters}
    drawn = set(re.findall(r"day => day\.(\w+)", page))
    assert drawn < set(asyncsvc.UsageBucket.model_fields)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_the_commands_of_the_readme_work():
    """Run the commands with a port and a directory of their own."""
    run, use = re.findall(r"```sh\n(.*?)```", (FOLDER / "README.md").read_text("utf-8"), re.DOTALL)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="asyncsvc-") as place:
        pathlib.Path(place).chmod(0o755)  # if root starts a server, it runs as another user
        script = f"""
            cd {FOLDER.parents[1]}
            {run.rstrip()} --port {port} --log-level warning &
            service=$!
            trap 'kill $service; wait; asyncsvc postgres stop --data {place}/data' EXIT
            until curl -s localhost:{port}/usage > {place}/page; do sleep 0.1; done
            {use}"""
        script = script.replace("./chat-data", f"{place}/data").replace(":8000", f":{port}")
        programs = pathlib.Path(sys.executable).parent
        finished = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=os.environ | {"PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        page = pathlib.Path(place, "page").read_text("utf-8")
    assert page == (FOLDER / "usage.html").read_text("utf-8")
    answers = [line for line in finished.stdout.splitlines() if line.startswith(("{", "["))]
    created, answer, listed, messages, feedback, hits, days, models, budgets, revoked = answers
    assert json.loads(created)["id"] == json.loads(listed)["items"][0]["id"] == "parcel"
    assert json.loads(answer)["answer"] == "You said: Where is it?"
    assert [each["seq"] for each in json.loads(messages)] == [1, 2]
    assert json.loads(feedback)["thumb"] == 1
    assert json.loads(hits)["items"][0]["snippet"] == "Where is it?"
    assert json.loads(days)[0]["thumb_up"] == 1
    cost = {each["group"]: each["cost"] for each in json.loads(models)}
    assert cost == {"echo/small": "0.000010750", None: "0.000000000"}
    assert [each["used"] for each in json.loads(budgets)] == ["0.00001075"]
    assert json.loads(revoked)["status"] == "revoked"


# A schema cannot express a valid cursor, a known zone, the order of the dates or an unused key.
SCHEMATHESIS = """
headers = {{ Authorization = "Bearer {secret}" }}
cache.enabled = false
generation.deterministic = true
generation.max-examples = 25

[[operations]]
include-operation-id-regex = "^(list_conversations|search|statistics)_"
checks.positive_data_acceptance.expected-statuses = [200, 422]

[[operations]]
include-operation-id-regex = "^append_turn_"
checks.positive_data_acceptance.expected-statuses = [200, 404, 422]
"""


async def test_schemathesis_finds_no_failure(ann, tmp_path):
    """Valid requests succeed, invalid requests are rejected, and each response is documented.

    Schemathesis generates about 500 requests, most of them invalid, and follows links between them.
    """
    config = tmp_path / "schemathesis.toml"
    config.write_text(SCHEMATHESIS.format(secret=ann.secret), encoding="utf-8")
    run = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "--no-color"]
    finished = await asyncio.to_thread(
        subprocess.run,
        [*run, "run", f"{ann.base_url}/openapi.json", "--warnings", "off"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=4 * SECONDS,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    generated, passed = re.search(r"(\d+) generated, (\d+) passed", finished.stdout).groups()
    assert generated == passed
    assert int(generated) > 400
    assert (await ann.get("/conversations")).status_code == 200  # the token is still valid


async def test_a_length_that_is_no_number_is_a_problem():
    """A server in front of the application may pass it on."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        for length in ("abc", "", "-1", "1.5", "0x10", "²"):
            headers = [(b"content-length", length.encode("latin-1"))]
            response = await client.send(client.build_request("POST", "/search", headers=headers))
            assert response.status_code == 400, length
            assert response.headers["content-type"] == PROBLEM
        response = await client.get("/search", headers={"content-length": "9" * 5_000})
        assert response.status_code == 413


async def test_responses_are_neither_stored_nor_framed():
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        for path in ("/usage", "/nowhere"):
            headers = (await client.get(path)).headers
            assert headers["cache-control"] == "no-store"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
