"""`asyncsvc.integrations.fastapi` on a server, through ASGI."""

import asyncio
import contextlib
import json
import logging
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import fastapi
import httpx
import pytest
from fastapi import Depends, FastAPI, HTTPException, Response, Security

import asyncsvc
from asyncsvc import (
    APIToken,
    Appended,
    AsyncSvc,
    BudgetExceeded,
    Conversation,
    Message,
    Settings,
    Turn,
    Usage,
    VerifiedToken,
    errors,
)
from asyncsvc.integrations.fastapi import (
    STATUSES,
    Problem,
    add_problem_details,
    idempotency_key,
    lifespan,
    mark_replay,
    problems,
    services,
    token_within_budgets,
    verified_token,
)
from tests.support.citus import execute

PROBLEM = "application/problem+json"
ERRORS = [
    each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, asyncsvc.AsyncSvcError)
]
CHALLENGE = re.compile(r'Bearer (?:[a-z_]+="[ !#-\[\]-~]*"(?:, |$))+')
WRITERS = 16

Service = Annotated[AsyncSvc, Depends(services)]
Token = Annotated[APIToken, Security(verified_token, scopes=["chat"])]
Admin = Annotated[APIToken, Security(verified_token, scopes=["chat", "admin"])]
Key = Annotated[str | None, Depends(idempotency_key)]


def application(dsn: str, *, all_errors: bool = True, **settings: object) -> FastAPI:
    """Return an application with a route for each feature."""
    app = FastAPI(
        lifespan=lifespan(lambda: asyncsvc.connect(dsn, settings=Settings(**settings))),
        responses=problems(401, 403, 422, 503),
    )
    add_problem_details(app, all_errors=all_errors)

    @app.get("/conversations/{id}", responses=problems(404))
    async def get(svc: Service, token: Token, id: str) -> Conversation:
        return await svc.conversations.get_by_id(id, tenant_id=token.tenant_id)

    @app.post("/conversations/{id}/turns", responses=problems(404))
    async def append(
        svc: Service, token: Token, id: str, text: str, key: Key, response: Response
    ) -> Appended:
        turn = Turn(messages=[Message(role="user", content=text)])
        appended = await svc.conversations.append_message(
            id, turn, tenant_id=token.tenant_id, idempotency_key=key
        )
        mark_replay(response, appended)
        return appended

    @app.get("/admin")
    async def admin(token: Admin) -> str:
        return token.name

    @app.get("/key")
    async def show_key(key: Key) -> str | None:
        return key

    return app


@contextlib.asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run the lifespan of an application, and yield a client."""
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope, receive, send):
            await app(scope | {"state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(with_state, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            yield client


@pytest.fixture
async def client(dsn) -> AsyncIterator[httpx.AsyncClient]:
    async with running(application(dsn)) as client:
        yield client


@pytest.fixture
async def chat(svc, client) -> httpx.AsyncClient:
    """A client with a token for the scope `chat`, and the conversation `a`."""
    client.headers.update(await bearer(svc, "chat"))
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    return client


async def bearer(svc: AsyncSvc, *scopes: str) -> dict[str, str]:
    issued = await svc.tokens.create(tenant_id="t", name="test", scopes=scopes)
    return {"Authorization": f"Bearer {issued.secret.get_secret_value()}"}


def raising(error: Exception, **options: object) -> FastAPI:
    """Return an application whose route raises the error."""
    app = FastAPI()
    add_problem_details(app, **options)

    @app.get("/")
    async def fail() -> None:
        raise error

    return app


async def answer_of(app: FastAPI, path: str = "/", **options: object) -> httpx.Response:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get(path, **options)


def rejected(response: httpx.Response, status: int, kind: str | None = None) -> dict[str, object]:
    """Return the problem of a response; `kind` is the name of the error's class."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    body = response.json()
    assert body["type"] == (f"urn:asyncsvc:{kind}" if kind else "about:blank")
    assert body["status"] == status
    Problem.model_validate(body)
    return body


# --------------------------------------------------------------------------------- lifespan


async def test_the_services_are_open_until_the_end_of_the_application(svc, dsn):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    app = application(dsn)
    opened: list[AsyncSvc] = []

    @app.get("/services")
    async def get_services(svc: Service) -> None:
        opened.append(svc)

    async with running(app) as client:
        client.headers.update(await bearer(svc, "chat"))
        assert (await client.get("/conversations/a")).json()["id"] == "a"
        await client.get("/services")
    with pytest.raises(asyncsvc.PoolClosed):
        await opened[0].conversations.get_by_id("a", tenant_id="t")


async def test_the_lifespan_of_the_application_runs_while_the_services_are_open(dsn):
    events: list[str] = []

    @contextlib.asynccontextmanager
    async def database() -> AsyncIterator[AsyncSvc]:
        async with asyncsvc.connect(dsn) as svc:
            events.append("open")
            yield svc
        events.append("closed")

    @contextlib.asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        events.append(app.title)
        yield {"color": "red"}
        events.append("end of own")

    app = FastAPI(title="own", lifespan=lifespan(database, own))

    @app.get("/")
    async def color(request: fastapi.Request, svc: Service) -> str:
        await svc.check()
        return request.state.color

    async with running(app) as client:
        assert (await client.get("/")).json() == "red"
    assert events == ["open", "own", "end of own", "closed"]


async def test_a_lifespan_without_a_state_and_an_included_one_are_composed(dsn):
    @contextlib.asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[None]:
        yield

    app = FastAPI()
    router = fastapi.APIRouter(lifespan=lifespan(lambda: asyncsvc.connect(dsn), own))

    @router.get("/")
    async def check(svc: Service) -> None:
        await svc.check()

    app.include_router(router)
    async with running(app) as client:
        assert (await client.get("/")).status_code == 200


async def test_a_failed_start_closes_the_services(dsn, caplog):
    opened: list[AsyncSvc] = []

    @contextlib.asynccontextmanager
    async def database() -> AsyncIterator[AsyncSvc]:
        async with asyncsvc.connect(dsn) as svc:
            opened.append(svc)
            yield svc

    @contextlib.asynccontextmanager
    async def own(_: FastAPI) -> AsyncIterator[None]:
        raise OSError("no model")
        yield

    with pytest.raises(OSError, match="no model"):
        async with running(FastAPI(lifespan=lifespan(database, own))):
            pass
    with pytest.raises(asyncsvc.PoolClosed):
        await opened[0].check()


async def test_a_mounted_application_has_the_services(dsn):
    app, mounted = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect(dsn))), FastAPI()

    @mounted.get("/")
    async def check(svc: Service) -> None:
        await svc.check()

    app.mount("/mounted", mounted)
    async with running(app) as client:
        assert (await client.get("/mounted/")).status_code == 200


async def test_a_missing_lifespan_is_named(dsn):
    app = application(dsn)
    transport = httpx.ASGITransport(app)  # which runs no lifespan
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        with pytest.raises(RuntimeError, match="lifespan"):
            await client.get("/conversations/a")


async def test_a_test_replaces_the_services(svc, dsn):
    app = application("postgresql://nowhere.invalid/none")
    app.dependency_overrides[services] = lambda: svc
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    response = await answer_of(app, "/conversations/a", headers=await bearer(svc, "chat"))
    assert response.json()["id"] == "a"


# ----------------------------------------------------------------------------------- tokens


async def test_a_token_with_the_scopes_is_returned(svc, client):
    for scopes in (("chat", "admin"), ("*",), ("admin", "chat", "more")):
        response = await client.get("/admin", headers=await bearer(svc, *scopes))
        assert response.json() == "test"


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi", "x" * 9_000])
async def test_a_request_without_a_token_is_401_without_an_error_code(header, client):
    response = await client.get(
        "/admin", headers={} if header is None else {"Authorization": header}
    )
    assert rejected(response, 401, "InvalidToken")["title"] == "Invalid token"
    assert response.headers["www-authenticate"] == 'Bearer realm="api", scope="chat admin"'


@pytest.mark.parametrize("secret", ["x", "asv_" + "x" * 40, "\xff", "x" * 9_000, 'x"y', "a b c"])
async def test_an_invalid_token_is_401(secret, client):
    headers = [(b"Authorization", b"Bearer " + secret.encode("latin-1"))]
    response = await client.get("/conversations/a", headers=headers)
    assert rejected(response, 401, "InvalidToken")["detail"] == "the token is not valid"
    challenge = 'Bearer realm="api", error="invalid_token", scope="chat"'
    assert response.headers["www-authenticate"] == challenge
    assert secret not in response.text or len(secret) == 1


async def test_a_revoked_token_is_401_at_once(svc, chat):
    assert (await chat.get("/conversations/a")).status_code == 200
    (token,) = (await svc.tokens.get_list(tenant_id="t")).items
    await svc.tokens.revoke(token.id, tenant_id="t")
    rejected(await chat.get("/conversations/a"), 401, "InvalidToken")


async def test_a_token_without_a_scope_is_403(svc, client):
    for scopes in (("chat",), ("admin",), ("other",)):
        response = await client.get("/admin", headers=await bearer(svc, *scopes))
        assert rejected(response, 403, "InsufficientScope")["detail"].startswith("the token lacks ")
        challenge = 'Bearer realm="api", error="insufficient_scope", scope="chat admin"'
        assert response.headers["www-authenticate"] == challenge


async def test_scopes_of_nested_dependencies_add_up(svc, dsn):
    app = application(dsn)

    @app.get("/nested", dependencies=[Security(verified_token, scopes=["chat"])])
    async def nested(token: Annotated[APIToken, Security(verified_token, scopes=["write"])]) -> str:
        return token.name

    async with running(app) as client:
        for scopes, status in ((("chat", "write"), 200), (("chat",), 403), (("write",), 403)):
            response = await client.get("/nested", headers=await bearer(svc, *scopes))
            assert response.status_code == status


@pytest.mark.parametrize("scope", ['a"b', "a\\b", "größe", "a\nb", "日本", "a b"])
async def test_a_challenge_quotes_any_scope(scope, svc, dsn):
    app = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect(dsn)))

    @app.get("/", dependencies=[Security(verified_token, scopes=[scope])])
    async def get() -> None: ...

    async with running(app) as client:
        for headers, status in ((await bearer(svc, "chat"), 403), ({}, 401)):
            response = await client.get("/", headers=headers)
            assert response.status_code == status
            assert CHALLENGE.fullmatch(response.headers["www-authenticate"])
        response = await client.get("/", headers=await bearer(svc, scope))
        assert response.status_code == 200


async def test_tokens_are_rejected_also_without_problem_details(svc, dsn):
    app = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect(dsn)))

    @app.get("/")
    async def get(_: Token) -> None: ...

    async with running(app) as client:
        for headers, status in (({}, 401), (await bearer(svc, "other"), 403)):
            response = await client.get("/", headers=headers)
            assert response.status_code == status
            assert set(response.json()) == {"detail"}
            assert response.headers["www-authenticate"].startswith("Bearer ")


async def test_the_same_challenge_answers_an_error_of_a_route():
    response = await answer_of(raising(asyncsvc.InvalidToken()))
    rejected(response, 401, "InvalidToken")
    assert response.headers["www-authenticate"] == 'Bearer realm="api", error="invalid_token"'
    response = await answer_of(raising(asyncsvc.InsufficientScope("the token lacks x")))
    assert rejected(response, 403, "InsufficientScope")["detail"] == "the token lacks x"
    assert response.headers["www-authenticate"] == 'Bearer realm="api", error="insufficient_scope"'


# ---------------------------------------------------------------------------------- budgets


def spent(resets_at: datetime | None = datetime(2999, 1, 1, tzinfo=UTC)) -> BudgetExceeded:
    return BudgetExceeded(
        budget_id="b1",
        scope="user",
        subject="ann",
        metric="cost",
        used=Decimal("3.5E-7"),
        limit=Decimal("0E-9"),
        window="month" if resets_at else "total",
        resets_at=resets_at,
    )


async def test_a_spent_budget_is_429_until_it_resets_and_the_problem_names_it():
    resets_at = datetime.now(UTC) + timedelta(seconds=90.5)
    response = await answer_of(raising(spent(resets_at)))
    body = rejected(response, 429, "BudgetExceeded")
    assert body["code"] == "budget_exceeded"
    assert body["budget"] == {
        "id": "b1",
        "scope": "user",
        "subject": "ann",
        "metric": "cost",
        "used": "0.00000035",
        "limit": "0.000000000",
        "window": "month",
        "resets_at": resets_at.isoformat(),
    }
    assert response.headers["x-should-retry"] == "false"
    assert re.fullmatch(r"\d+", response.headers["retry-after"])
    left = int(response.headers["retry-after"])
    waited = datetime.now(UTC) + timedelta(seconds=left)
    assert left <= 91
    assert waited >= resets_at - timedelta(seconds=1)


async def test_a_budget_that_resets_now_asks_for_1_second():
    response = await answer_of(raising(spent(datetime.now(UTC) - timedelta(seconds=5))))
    assert response.headers["retry-after"] == "1"


async def test_a_spent_budget_that_never_resets_is_402_without_a_time():
    response = await answer_of(raising(spent(resets_at=None)))
    body = rejected(response, 402, "BudgetExceeded")
    assert body["budget"]["resets_at"] is None
    assert body["budget"]["window"] == "total"
    assert "retry-after" not in response.headers
    assert response.headers["x-should-retry"] == "false"


async def acting_user(x_user: Annotated[str | None, fastapi.Header()] = None) -> str | None:
    return x_user


async def dialog(dialog_id: str | None = None) -> str | None:
    return dialog_id


@pytest.mark.parametrize("has_problems", [True, False])
async def test_a_token_is_refused_when_a_budget_of_its_request_is_spent(svc, dsn, has_problems):
    app = FastAPI(lifespan=lifespan(lambda: asyncsvc.connect(dsn)))
    if has_problems:
        add_problem_details(app)

    @app.get("/")
    async def get(
        token: Annotated[
            VerifiedToken, Security(token_within_budgets(acting_user, dialog), scopes=["chat"])
        ],
    ) -> str | None:
        return token.budget and token.budget.scope

    for scope in ("user", "dialog"):
        await svc.budgets.set(tenant_id="t", scope=scope, limit=1, window="total")
    async with running(app) as client:
        client.headers.update(await bearer(svc, "chat"))
        assert (await client.get("/")).json() is None
        assert (await client.get("/", headers={"X-User": "ann"})).json() == "user"
        turn = Turn(
            messages=[Message(role="user", content="x")],
            usage=Usage(input_tokens=1, output_tokens=1, cost=Decimal(1)),
        )
        for id, owner in (("a", {"dialog_id": "d", "user_id": "ann"}), ("b", {"dialog_id": "e"})):
            await svc.conversations.append_message(id, turn, tenant_id="t", create=owner)
        for headers, path, status in (
            ({"X-User": "ann"}, "/", 402), ({"X-User": "bob"}, "/", 200), ({}, "/", 200),
            ({}, "/?dialog_id=e", 402), ({}, "/?dialog_id=f", 200),
        ):  # fmt: skip
            assert (await client.get(path, headers=headers)).status_code == status
        refused = await client.get("/", headers={"X-User": "ann"})
        assert refused.headers["x-should-retry"] == "false"
        if has_problems:
            body = rejected(refused, 402, "BudgetExceeded")
            assert (body["budget"]["subject"], body["budget"]["used"]) == ("ann", "1")
        client.headers.update(await bearer(svc, "other"))
        assert (await client.get("/")).status_code == 403
        del client.headers["authorization"]
        challenge = (await client.get("/")).headers["www-authenticate"]
        assert challenge == 'Bearer realm="api", scope="chat"'


# --------------------------------------------------------------------------- problem details


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
async def test_each_error_has_a_status_a_type_and_a_title_and_no_text_of_the_service(
    kind: type[asyncsvc.AsyncSvcError], caplog
):
    secret = "SELECT 'asv_secret' FROM asyncsvc.api_token"
    arguments = {
        asyncsvc.InvalidInput: ("turn.messages", "is too long"),
        asyncsvc.NotFound: ("conversation",),
        asyncsvc.InvalidToken: (),
        asyncsvc.DatabaseError: (secret, "42501"),
    }
    error = spent() if kind is BudgetExceeded else kind(*arguments.get(kind, (secret,)))
    status = next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)
    with caplog.at_level(logging.ERROR):
        response = await answer_of(raising(error))
    body = rejected(response, status, kind.__name__)
    assert body["title"].lower().replace(" ", "") == kind.__name__.lower()
    assert ("retry-after" in response.headers) == (status in {429, 503})
    assert ("www-authenticate" in response.headers) == (status in {401, 403})
    if status >= 500:
        assert "secret" not in response.text
        assert set(body) == {"type", "status", "title"}
        assert f"/: {error}" in caplog.text  # the operator sees it
        assert ("Traceback" in caplog.text) == (status == 500)
    else:
        assert body["detail"] == str(error)
        assert not caplog.records


def test_each_subclass_of_unavailable_is_a_503_and_each_other_error_has_its_class():
    unavailable = [kind for kind in ERRORS if issubclass(kind, asyncsvc.Unavailable)]
    assert len(unavailable) == 6
    assert {
        kind.__name__: next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)
        for kind in ERRORS
        if kind not in unavailable
    } == {
        "AsyncSvcError": 500,
        "InvalidInput": 422,
        "NotFound": 404,
        "BudgetExceeded": 429,
        "AlreadyExists": 409,
        "Conflict": 409,
        "IdempotencyConflict": 422,
        "StaleSequence": 409,
        "InvalidToken": 401,
        "InsufficientScope": 403,
        "ConcurrentUse": 500,
        "DatabaseError": 500,
        "MigrationError": 500,
    }


async def test_a_class_of_the_application_is_answered_as_its_base():
    class QuotaExceeded(asyncsvc.Conflict):
        pass

    rejected(await answer_of(raising(QuotaExceeded("too many"))), 409, "QuotaExceeded")


async def test_a_handler_of_the_application_has_precedence():
    app = raising(asyncsvc.NotFound("token"), all_errors=True)

    @app.exception_handler(asyncsvc.NotFound)
    async def gone(_: fastapi.Request, __: Exception) -> Response:
        return Response("gone", 410)

    assert (await answer_of(app)).status_code == 410


async def test_invalid_input_names_the_field(chat):
    response = await chat.get(f"/conversations/{'x' * 129}")
    body = rejected(response, 422, "InvalidInput")
    assert list(body["errors"]) == ["id"]
    assert body["detail"] == f"id: {body['errors']['id']}"


async def test_all_fields_of_an_invalid_request_are_named():
    app = raising(ValueError(), all_errors=True)

    @app.get("/items")
    async def items(limit: int, after: int) -> None: ...

    body = rejected(await answer_of(app, "/items?limit=x"), 422, "InvalidInput")
    assert list(body["errors"]) == ["query.limit", "query.after"]
    assert body["detail"] == "; ".join(": ".join(each) for each in body["errors"].items())


async def test_errors_of_fastapi_keep_their_form_unless_the_caller_asks():
    app = raising(HTTPException(418, {"a": [1]}, {"X-Tea": "1"}))

    @app.get("/items")
    async def items(limit: int) -> None: ...

    assert (await answer_of(app)).json() == {"detail": {"a": [1]}}
    assert (await answer_of(app, "/items")).json()["detail"][0]["loc"] == ["query", "limit"]
    assert (await answer_of(app, "/nowhere")).json() == {"detail": "Not Found"}
    assert (await answer_of(raising(ValueError("secret")))).text == "Internal Server Error"

    response = await answer_of(
        raising(HTTPException(418, "a teapot", {"X-Tea": "1"}), all_errors=True)
    )
    assert rejected(response, 418)["detail"] == "a teapot"
    assert response.headers["x-tea"] == "1"
    response = await answer_of(raising(HTTPException(418, {"a": [1]}), all_errors=True))
    assert rejected(response, 418)["detail"] == "{'a': [1]}"
    body = rejected(
        await answer_of(raising(ValueError("secret"), all_errors=True), "/nowhere"), 404
    )
    assert body == {"type": "about:blank", "status": 404, "title": "Not Found"}
    body = rejected(await answer_of(raising(ValueError("secret"), all_errors=True)), 500)
    assert body == {"type": "about:blank", "status": 500, "title": "Internal Server Error"}
    response = await answer_of(raising(HTTPException(599, "x"), all_errors=True))
    assert rejected(response, 599)["title"] == "Error"


@pytest.mark.parametrize("status", [204, 304, 307])
async def test_a_status_that_is_no_error_stays_as_it_is(status):
    error = HTTPException(status, headers={"Location": "/elsewhere"})
    response = await answer_of(raising(error, all_errors=True))
    assert (response.status_code, response.content) == (status, b"")
    assert response.headers["location"] == "/elsewhere"


async def test_texts_that_quote_the_request_are_shortened():
    error = asyncsvc.InvalidInput("payload." + "k" * 10_000 + "\ud800", "\ud800" * 10_000)
    response = await answer_of(raising(error))
    assert len(response.content) < 2_000
    assert rejected(response, 422, "InvalidInput")["detail"].startswith("payload.kkk")


async def test_the_prefix_and_the_time_to_wait_are_options():
    app = raising(asyncsvc.PoolExhausted("full"), prefix="https://example.com/", retry_after=7)
    response = await answer_of(app)
    assert response.json()["type"] == "https://example.com/PoolExhausted"
    assert response.headers["retry-after"] == "7"


async def test_a_full_pool_is_a_503_in_whole_seconds(svc, dsn, caplog):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    headers = await bearer(svc, "chat")
    settings = Settings(acquire_timeout=0.2, retry_timeout=0, maintenance_interval=None)
    # The only connection is open and idle when the first request needs it.
    app = FastAPI(
        lifespan=lifespan(lambda: asyncsvc.connect(dsn, settings=settings, min_size=1, max_size=1))
    )
    add_problem_details(app)

    @app.get("/hold")
    async def hold(svc: Service) -> int:
        async with svc.transaction():
            return (await answer("/check")).status_code

    @app.get("/check")
    async def check(svc: Service, _: Token) -> None: ...

    async with running(app) as client:
        client.headers.update(headers)
        responses: list[httpx.Response] = []

        async def answer(path: str) -> httpx.Response:
            responses.append(await client.get(path))
            return responses[-1]

        assert (await client.get("/hold")).json() == 503
        rejected(responses[0], 503, "PoolExhausted")
        assert int(responses[0].headers["retry-after"]) > 0
        assert (await client.get("/check")).status_code == 200


async def test_no_text_of_the_database_reaches_a_client(svc, chat, dsn, caplog):
    await execute(dsn, "ALTER TABLE asyncsvc.message RENAME TO gone")
    try:
        response = await chat.post("/conversations/a/turns", params={"text": "secret question"})
        assert set(rejected(response, 500, "MigrationError")) == {"type", "status", "title"}
    finally:
        await execute(dsn, "ALTER TABLE asyncsvc.gone RENAME TO message")
    assert "/conversations/a/turns: " in caplog.text
    assert "secret question" not in caplog.text
    assert chat.headers["authorization"].split()[1] not in caplog.text


async def test_a_path_cannot_forge_a_line_of_the_log(caplog):
    app = FastAPI()
    add_problem_details(app)

    @app.get("/{name}")
    async def fail(name: str) -> None:
        raise asyncsvc.PoolClosed("the pool is closed")

    response = await answer_of(app, "/a%0aERROR%20forged")
    rejected(response, 503, "PoolClosed")
    assert "/a%0AERROR%20forged: the pool is closed" in caplog.text


async def test_a_websocket_is_denied_before_it_is_accepted(svc, dsn):
    app = application(dsn)

    @app.websocket("/ws")
    async def ws(websocket: fastapi.WebSocket, token: Token) -> None:
        await websocket.accept()

    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app) as state:
        for headers in ({}, await bearer(svc, "chat")):
            scope = {
                "type": "websocket",
                "path": "/ws",
                "raw_path": b"/ws",
                "query_string": b"",
                "root_path": "",
                "scheme": "ws",
                "server": ("app", 80),
                "subprotocols": [],
                "extensions": {"websocket.http.response": {}},
                "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
                "state": dict(state),
            }
            await app(scope, receive, send)
    denied, body, accepted, *_ = sent
    assert (denied["type"], denied["status"]) == ("websocket.http.response.start", 401)
    assert json.loads(body["body"])["type"] == "urn:asyncsvc:InvalidToken"
    assert accepted["type"] == "websocket.accept"


# -------------------------------------------------------------------------- idempotency keys


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, None),
        ("8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ('"8e03978e-40d5-43e8-bc93-6894a57f9324"', "8e03978e-40d5-43e8-bc93-6894a57f9324"),
        ("1", "1"),
        ('"1"', "1"),
        ('"a b"', "a b"),
        (r'"a\"b\\c"', r'a"b\c'),
        ('"a";version=1;x="y"', "a"),
        ('"a" ;b', "a"),
        ('a"b', 'a"b'),
        ("x" * 255, "x" * 255),
        (f'"{"x" * 255}"', "x" * 255),
        ('"' + r"\"" * 255 + '"', '"' * 255),
    ],
)
async def test_a_key_is_a_structured_string_or_bare(header, key, client):
    headers = {} if header is None else {"Idempotency-Key": header}
    response = await client.get("/key", headers=headers)
    assert (response.status_code, response.json()) == (200, key)


@pytest.mark.parametrize(
    "header",
    [
        "", '"', '""', '"a', "a b", "ä", '"ä"', r'"a\b"', r'"a\"', '"a"b', '"a", "b"', "x" * 256,
        f'"{"x" * 256}"', ":YQ==:;a b", '"a\x7f"', '"a\tb"',
    ],
)  # fmt: skip
async def test_an_invalid_key_is_rejected(header, chat):
    headers = [(b"Idempotency-Key", header.encode())]
    for path in ("/key", "/conversations/a/turns?text=x"):
        method = "POST" if "turns" in path else "GET"
        body = rejected(await chat.request(method, path, headers=headers), 422, "InvalidInput")
        assert list(body["errors"]) == ["header.Idempotency-Key"]


async def test_a_replay_has_a_header(chat):
    path, headers = "/conversations/a/turns?text=x", {"Idempotency-Key": '"1"'}
    first = await chat.post(path, headers=headers)
    assert "idempotent-replayed" not in first.headers
    again = await chat.post(path, headers={"Idempotency-Key": "1"})
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == first.json() | {"replayed": True}
    without_key = await chat.post(path)
    assert "idempotent-replayed" not in without_key.headers
    assert without_key.json()["last_seq"] == 2


async def test_a_key_of_another_request_is_422(chat):
    headers = {"Idempotency-Key": "1"}
    await chat.post("/conversations/a/turns?text=x", headers=headers)
    response = await chat.post("/conversations/a/turns?text=y", headers=headers)
    rejected(response, 422, "IdempotencyConflict")
    assert "idempotent-replayed" not in response.headers


async def test_concurrent_requests_with_one_key_store_one_turn(chat):
    headers = {"Idempotency-Key": '"1"'}
    responses = await asyncio.gather(
        *(chat.post("/conversations/a/turns?text=x", headers=headers) for _ in range(WRITERS))
    )
    assert {response.status_code for response in responses} == {200}
    replayed = [response.headers.get("idempotent-replayed") for response in responses]
    assert sorted(replayed, key=str) == [None] + ["true"] * (WRITERS - 1)
    assert (await chat.get("/conversations/a")).json()["last_seq"] == 1


async def test_concurrent_requests_keep_their_tokens_and_errors_apart(svc, client):
    await svc.conversations.create(tenant_id="t", dialog_id="d", id="a")
    headers = [await bearer(svc, "chat"), await bearer(svc, "other"), {}]
    responses = await asyncio.gather(
        *(client.get("/conversations/a", headers=headers[n % 3]) for n in range(3 * WRITERS))
    )
    assert [response.status_code for response in responses] == [200, 403, 401] * WRITERS


# ---------------------------------------------------------------------------------- OpenAPI


def test_the_openapi_document_has_the_problems_the_scopes_and_the_key(dsn):
    document = application(dsn).openapi()
    append = document["paths"]["/conversations/{id}/turns"]["post"]
    assert append["security"] == [{"HTTPBearer": ["chat"]}]
    assert document["paths"]["/admin"]["get"]["security"] == [{"HTTPBearer": ["chat", "admin"]}]
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    (key,) = (each for each in append["parameters"] if each["in"] == "header")
    assert (key["name"], key["required"]) == ("Idempotency-Key", False)
    reference = {"$ref": "#/components/schemas/Problem"}
    for status in ("401", "403", "404", "422", "503"):
        assert append["responses"][status]["content"] == {PROBLEM: {"schema": reference}}
    schema = document["components"]["schemas"]["Problem"]
    assert " ".join(schema["properties"]) == "type status title detail errors code budget"
    assert "$ref" not in json.dumps(schema)
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.filterwarnings("error")
async def test_an_input_model_is_a_request_body():
    app = FastAPI()
    add_problem_details(app)

    @app.post("/turns")
    async def append(turn: Turn) -> int:
        return len(turn.messages)

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        stored = await client.post("/turns", json={"messages": [{"role": "user", "content": "a"}]})
        assert stored.json() == 1
        failed = await client.post("/turns", json={"messages": [{"role": "user", "content": 3}]})
    assert failed.status_code == 422
    assert list(failed.json()["errors"]) == ["messages.0.content"]
