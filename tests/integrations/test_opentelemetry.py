"""Spans and metrics of OpenTelemetry, as its exporters receive them from a real server."""

import asyncio
import contextlib
import itertools
import logging
import time

import asyncpg
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import asyncsvc
from asyncsvc import Settings
from asyncsvc.integrations.opentelemetry import Telemetry
from tests.support.citus import END_WAITING, execute_each

TENANT = "acme"
TURN = {"messages": [{"role": "user", "content": "hello"}]}
SERVER = {"db.namespace": "chat", "server.address": "db.internal", "server.port": 5432}
SYSTEM = {"db.system.name": "postgresql"}
WAIT = 60  # the guard against an event that does not come
BOUNDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)


class Exported:
    """What the SDK exports, in memory."""

    def __init__(self):
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.traces = TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider(metric_readers=[self._reader])
        self.tracer = self.traces.get_tracer("application")

    def telemetry(self, **options):
        return Telemetry(tracer_provider=self.traces, meter_provider=self.meters, **options)

    def spans(self, name=None):
        spans = self._spans.get_finished_spans()
        return [span for span in spans if name is None or span.name == name]

    def statements(self):
        return [span for span in self.spans() if span.kind is SpanKind.CLIENT]

    def points(self, metric):
        """Return the data points of a metric, each with its attributes."""
        data = self._reader.get_metrics_data()
        return [
            (dict(point.attributes), point)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for each in scope.metrics
            if each.name == metric
            for point in each.data.data_points
        ]

    def values(self, metric, attribute):
        """Return the value or the count of each point, by one of its attributes."""
        return {
            attributes[attribute]: point.value if hasattr(point, "value") else point.count
            for attributes, point in self.points(metric)
        }

    def text(self):
        """Return all exported data as one text."""
        data = self._reader.get_metrics_data()
        spans = "".join(span.to_json() for span in self.spans())
        return spans + (data.to_json() if data else "")


@pytest.fixture
def exported():
    """The exporters of one test."""
    return Exported()


@contextlib.asynccontextmanager
async def connected(exported, dsn, *, pool=None, attributes=None, **settings):
    """Yield instrumented services."""
    telemetry = exported.telemetry(attributes=attributes)
    options = {"maintenance_interval": None, **settings}
    async with asyncsvc.connect(
        dsn, settings=telemetry.instrument(Settings(**options)), **(pool or {})
    ) as svc:
        yield svc


async def create(svc, id="a", **fields):
    await svc.conversations.create(tenant_id=TENANT, dialog_id="d", id=id, **fields)


async def append(svc, id="a", **options):
    await svc.conversations.append_message(id, TURN, tenant_id=TENANT, **options)


async def until(condition):
    """Wait until the condition holds."""
    async with asyncio.timeout(WAIT):
        while not condition():
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------ spans


async def test_a_statement_is_a_span_with_the_attributes_of_the_conventions(exported, dsn):
    async with connected(exported, dsn, attributes=SERVER) as svc:
        begun = time.time_ns()
        await create(svc)
        ended = time.time_ns()
    (span,) = exported.spans()
    assert (span.name, span.kind, span.parent) == (
        "conversation/create_many", SpanKind.CLIENT, None
    )  # fmt: skip
    assert dict(span.attributes) == {
        **SYSTEM, **SERVER, "db.query.summary": "conversation/create_many"
    }  # fmt: skip
    assert span.status.status_code is StatusCode.UNSET
    assert begun <= span.start_time < span.end_time <= ended
    assert span.instrumentation_scope.name == "asyncsvc"


async def test_the_spans_of_32_tasks_have_the_span_of_their_task_as_parent(exported, dsn):
    async def handle(svc, number):
        with exported.tracer.start_as_current_span(f"request {number}"):
            await create(svc, f"c{number}")
            async with svc.transaction() as tx:
                await append(tx, f"c{number}")
                await asyncio.sleep(0)
                await tx.conversations.messages(f"c{number}", tenant_id=TENANT)
            await asyncio.gather(append(svc, f"c{number}"), append(svc, f"c{number}"))

    async with connected(exported, dsn, pool={"max_size": 5}) as svc:
        await asyncio.gather(*(handle(svc, number) for number in range(32)))
    requests = {
        span.context.span_id: span for span in exported.spans() if span.kind is SpanKind.INTERNAL
    }
    by_request = {id: [] for id in requests}
    for span in exported.statements():
        request = requests[span.parent.span_id]
        assert span.context.trace_id == request.context.trace_id
        assert request.start_time <= span.start_time <= span.end_time <= request.end_time
        by_request[span.parent.span_id].append(span.name)
    assert len(requests) == 32
    names = ["conversation/append_message"] * 3 + ["conversation/create_many", "message/get_list"]
    assert all(sorted(each) == names for each in by_request.values())


async def test_the_spans_of_a_task_do_not_overlap(exported, dsn):
    async with connected(exported, dsn) as svc:
        await create(svc)
        for _ in range(5):
            await append(svc)
    spans = exported.statements()
    assert len(spans) == 6
    assert all(first.end_time <= second.start_time for first, second in itertools.pairwise(spans))


async def test_a_failed_statement_has_the_class_of_its_error_and_the_sqlstate(exported, dsn, pool):
    async with connected(exported, dsn, lock_timeout=0.05) as svc:
        await create(svc)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE asyncsvc.message IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(asyncsvc.LockTimeout):
                await append(svc)
        await pool.execute("ALTER TABLE asyncsvc.message RENAME TO gone")
        with pytest.raises(asyncsvc.MigrationError):
            await append(svc)
        await pool.execute("ALTER TABLE asyncsvc.gone RENAME TO message")
    expected = [("LockTimeout", "55P03"), ("MigrationError", "42P01")]
    failed = exported.spans("conversation/append_message")
    for span, (error, sqlstate) in zip(failed, expected, strict=True):
        assert span.status.status_code is StatusCode.ERROR
        assert span.attributes["error.type"] == error
        assert span.attributes["db.response.status_code"] == sqlstate
        assert span.events == ()
    errors = [
        (each["error.type"], each["db.response.status_code"], point.count)
        for each, point in exported.points("db.client.operation.duration")
        if "error.type" in each
    ]
    assert errors == [(error, sqlstate, 1) for error, sqlstate in expected]


async def test_a_cancelled_statement_is_a_failed_span(exported, dsn, pool):
    async with connected(exported, dsn) as svc:
        await create(svc)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("LOCK TABLE asyncsvc.message IN ACCESS EXCLUSIVE MODE")
            task = asyncio.create_task(append(svc))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    (span,) = exported.spans("conversation/append_message")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["error.type"] == "CancelledError"


# ---------------------------------------------------------------------------- metrics


async def test_the_durations_of_statements_are_those_of_the_spans(exported, dsn):
    async with connected(exported, dsn, attributes=SERVER) as svc:
        await create(svc)
        await append(svc)
        await append(svc)
    for name, count in {"conversation/create_many": 1, "conversation/append_message": 2}.items():
        ((attributes, point),) = [
            each for each in exported.points("db.client.operation.duration")
            if each[0]["db.query.summary"] == name
        ]  # fmt: skip
        assert attributes == {**SYSTEM, **SERVER, "db.query.summary": name}
        assert (point.count, point.explicit_bounds) == (count, BOUNDS)
        nanoseconds = sum(span.end_time - span.start_time for span in exported.spans(name))
        assert point.sum == pytest.approx(nanoseconds / 1e9, abs=1e-6)


async def test_each_retry_is_counted_and_each_attempt_is_a_span(exported, dsn, pool):
    async with connected(exported, dsn) as svc:
        await create(svc)
        async with pool.acquire() as connection, asyncio.timeout(WAIT):
            async with connection.transaction():
                await connection.execute("LOCK TABLE asyncsvc.conversation")
                task = asyncio.create_task(svc.conversations.get_by_id("a", tenant_id=TENANT))
                while not await pool.fetchval(END_WAITING):
                    await asyncio.sleep(0.01)
            await task
    failed, repeated = exported.spans("conversation/get_by_ids")
    assert failed.attributes["error.type"] == "Unavailable"
    assert "error.type" not in repeated.attributes
    ((attributes, point),) = exported.points("asyncsvc.retries")
    assert attributes == {**SYSTEM, "db.query.summary": "conversation/get_by_ids"}
    assert point.value == 1


async def test_waits_for_connections_are_recorded(exported, dsn):
    pool = {"min_size": 1, "max_size": 1}
    async with connected(exported, dsn, pool=pool, acquire_timeout=3) as svc:
        async with svc.transaction() as tx:
            await create(tx)
            with pytest.raises(asyncsvc.PoolExhausted):
                await append(svc)
        await append(svc)
    key = "db.client.connection.pool.name"
    assert exported.values("db.client.connection.wait_time", key) == {"primary": 2}
    assert exported.values("db.client.connection.timeouts", key) == {"primary": 1}
    assert exported.points("db.client.connection.wait_time")[0][1].explicit_bounds == BOUNDS


async def test_the_pools_of_observed_services_are_counted(exported, dsn):
    telemetry = exported.telemetry()
    settings = telemetry.instrument(Settings())

    def counts():
        points = exported.points("db.client.connection.count")
        names = ("db.client.connection.pool.name", "db.client.connection.state")
        return {tuple(each[name] for name in names): point.value for each, point in points}

    async with asyncsvc.connect(dsn, settings=settings, min_size=2, max_size=3) as svc:
        assert counts() == {}
        async with telemetry.observe(svc, interval=WAIT):
            await until(lambda: exported.spans("maintenance/backlog"))
            async with svc.transaction():
                assert counts() == {
                    ("primary", "idle"): 1, ("primary", "used"): 1,
                    ("maintenance", "idle"): 0, ("maintenance", "used"): 0,
                }  # fmt: skip
            limits = exported.values("db.client.connection.max", "db.client.connection.pool.name")
            assert limits == {"primary": 3, "maintenance": 1}
        assert counts() == {}


async def test_runs_of_maintenance_are_recorded(exported, dsn):
    async with connected(exported, dsn, maintenance_interval=0.05) as svc:
        await create(svc)
        await append(svc, idempotency_key="k")
        kind = "asyncsvc.maintenance.kind"
        expected = {
            "append_keys": 0, "ledger_rows": 2, "user_months": 0, "messages": 1, "titles": 1,
        }  # fmt: skip
        await until(lambda: exported.values("asyncsvc.maintenance.processed", kind) == expected)
        await execute_each(
            svc._executor._pool,
            "CREATE FUNCTION asyncsvc.fail() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'broken'; END $$;"
            "CREATE TRIGGER fail BEFORE UPDATE ON asyncsvc.message"
            " FOR EACH ROW EXECUTE FUNCTION asyncsvc.fail()",
        )
        await append(svc)
        job = "asyncsvc.maintenance.job"
        await until(lambda: exported.values("asyncsvc.maintenance.failures", job).get("search"))
        await svc._executor._pool.execute("DROP FUNCTION asyncsvc.fail CASCADE")
    assert all(point.count >= 1 for _, point in exported.points("asyncsvc.maintenance.duration"))


async def test_the_backlog_and_the_lag_follow_maintenance(exported, dsn, pool):
    telemetry = exported.telemetry()

    def backlog():
        return exported.values("asyncsvc.maintenance.backlog", "asyncsvc.maintenance.kind")

    def lag():
        (point,) = [point for _, point in exported.points("asyncsvc.maintenance.lag")]
        return point.value

    async with asyncsvc.connect(dsn, settings=Settings(maintenance_interval=None)) as svc:
        async with telemetry.observe(svc, interval=0.01):
            await until(lambda: backlog() == {"ledger_rows": 0, "messages": 0, "titles": 0})
            assert lag() == 0
            await create(svc)
            await append(svc)
            await until(lambda: backlog() == {"ledger_rows": 2, "messages": 1, "titles": 1})
            first = lag()
            assert 0 < first < WAIT  # the backlog was empty a moment ago
            await asyncio.sleep(0.05)
            assert lag() > first
            await svc.maintain()
            await until(lambda: lag() == 0)
            await append(svc)
            await until(lambda: backlog()["messages"])
        await pool.execute(
            "UPDATE asyncsvc.maintenance SET processed_until = now() - '1 day'::interval"
        )
        async with telemetry.observe(svc, interval=WAIT):
            await until(backlog)
            assert 86_400 < lag() < 2 * 86_400
        assert backlog() == {}


async def test_a_role_without_the_right_exports_no_backlog(exported, dsn, caplog):
    caplog.set_level(logging.INFO, "asyncsvc.integrations")
    telemetry = exported.telemetry()
    async with (
        asyncsvc.connect(f"{dsn}?role=pg_monitor") as svc,
        telemetry.observe(svc, interval=0.01),
    ):
        await until(lambda: "backlog of maintenance is not exported" in caplog.text)
        assert exported.points("asyncsvc.maintenance.lag") == []
        assert exported.points("db.client.connection.max")


async def test_a_failed_read_of_the_backlog_is_repeated(exported, dsn, pool):
    telemetry = exported.telemetry()
    await pool.execute("ALTER TABLE asyncsvc.usage_ledger RENAME TO gone")
    settings = telemetry.instrument(Settings(maintenance_interval=None))
    async with (
        asyncsvc.connect(dsn, settings=settings) as svc,
        telemetry.observe(svc, interval=0.01),
    ):
        await until(lambda: len(exported.spans("maintenance/backlog")) > 1)
        assert exported.points("asyncsvc.maintenance.backlog") == []
        await pool.execute("ALTER TABLE asyncsvc.gone RENAME TO usage_ledger")
        await until(lambda: exported.points("asyncsvc.maintenance.backlog"))


@pytest.mark.parametrize("interval", [0, -1, float("nan"), "60"])
async def test_an_interval_without_a_pause_is_rejected(exported, dsn, interval):
    async with asyncsvc.connect(dsn) as svc:
        with pytest.raises(asyncsvc.InvalidInput, match="interval: must be"):
            async with exported.telemetry().observe(svc, interval=interval):
                pass


async def test_the_statements_of_the_observation_do_not_belong_to_the_callers_span(exported, dsn):
    telemetry = exported.telemetry()
    settings = telemetry.instrument(Settings(maintenance_interval=None))
    async with asyncsvc.connect(dsn, settings=settings) as svc:
        with exported.tracer.start_as_current_span("start of the application"):
            async with telemetry.observe(svc):
                await until(lambda: exported.spans("maintenance/backlog"))
    (span,) = exported.spans("maintenance/backlog")
    assert span.parent is None


async def test_two_databases_share_a_provider(exported, dsn, database_factory):
    async with contextlib.AsyncExitStack() as stack:
        for name, each in {"one": dsn, "two": await database_factory()}.items():
            telemetry = exported.telemetry(attributes={"db.namespace": name})
            settings = telemetry.instrument(Settings(maintenance_interval=None))
            svc = await stack.enter_async_context(asyncsvc.connect(each, settings=settings))
            await stack.enter_async_context(telemetry.observe(svc))
            await create(svc)
        for metric in ("db.client.connection.max", "db.client.operation.duration"):
            await until(lambda: len(exported.spans("maintenance/backlog")) == 2)
            names = {each["db.namespace"] for each, _ in exported.points(metric)}
            assert names == {"one", "two"}


# ----------------------------------------------------------------- hooks and secrets


async def test_the_hooks_of_the_caller_are_called_too(exported, dsn):
    seen = []
    hooks = {
        name: lambda *values, name=name: seen.append((name, len(values)))
        for name in ("on_query", "on_acquire", "on_retry", "on_maintenance")
    }
    settings = Settings(max_page_size=7, maintenance_interval=0.05, **hooks)
    instrumented = exported.telemetry().instrument(settings)
    assert instrumented.max_page_size == 7
    assert settings.on_query is hooks["on_query"]
    async with asyncsvc.connect(dsn, settings=instrumented) as svc:
        await create(svc)
        instrumented.on_retry("a/b", 1, 0.1, asyncsvc.Unavailable("x"))
        await until(lambda: ("on_maintenance", 3) in seen)
    assert {("on_query", 4), ("on_acquire", 3), ("on_retry", 4)} < set(seen)


@pytest.mark.damages
async def test_no_id_text_or_secret_is_exported(exported, dsn, pool):
    password = "dsn-password-zx4711"
    role = f"otel_{abs(hash(dsn)) % 10**9}"
    await pool.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{password}'")
    hostile = {
        name: f"{name}-zx4711'; DROP TABLE x; --\" {{}} \u202e"
        for name in ("tenant", "dialog", "user", "id", "name", "content", "key", "role", "keyword")
    }
    try:
        await call_everything(exported, with_login(dsn, role, password), pool, hostile)
    finally:
        await pool.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
    text = exported.text()
    assert "DatabaseError" in text
    assert "zx4711" not in text
    assert "DROP TABLE" not in text
    assert role not in text


def with_login(dsn, role, password):
    return f"postgresql://{role}:{password}@{dsn.partition('://')[2].rpartition('@')[2]}"


async def call_everything(exported, dsn, pool, hostile):
    """Call methods with hostile values, with and without errors that quote them."""
    tenant = hostile["tenant"]
    telemetry = exported.telemetry()
    settings = telemetry.instrument(Settings(maintenance_interval=0.05))
    turn = {"messages": [{"role": hostile["role"][:20], "content": hostile["content"]}]}
    async with asyncsvc.connect(dsn, settings=settings) as svc, telemetry.observe(svc):
        for _ in range(2):
            with contextlib.suppress(asyncsvc.AlreadyExists):
                await svc.conversations.create(
                    tenant_id=tenant, dialog_id=hostile["dialog"], id=hostile["id"],
                    user_id=hostile["user"], name=hostile["name"],
                )  # fmt: skip
        await svc.conversations.append_message(
            hostile["id"], turn, tenant_id=tenant, idempotency_key=hostile["key"]
        )
        await svc.conversations.get_list(tenant_id=tenant, keywords=hostile["keyword"])
        issued = await svc.tokens.create(tenant_id=tenant, name=hostile["name"], scopes=["read"])
        secret = issued.secret.get_secret_value()
        await svc.tokens.verify(secret)
        with pytest.raises(asyncsvc.InvalidToken):
            await svc.tokens.verify(secret[:-1] + ("a" if secret[-1] != "a" else "b"))
        await execute_each(
            pool,
            "CREATE FUNCTION asyncsvc.quote() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'bad: %', NEW.content USING DETAIL = NEW.content; END $$;"
            "CREATE TRIGGER quote BEFORE INSERT OR UPDATE ON asyncsvc.message"
            " FOR EACH ROW EXECUTE FUNCTION asyncsvc.quote()",
        )
        with pytest.raises(asyncsvc.DatabaseError, match="zx4711"):
            await svc.conversations.append_message(hostile["id"], turn, tenant_id=tenant)
        job = "asyncsvc.maintenance.job"
        await until(lambda: exported.values("asyncsvc.maintenance.failures", job))
    assert secret not in exported.text()
    assert secret.rpartition("_")[2] not in exported.text()


async def test_a_borrowed_pool_is_instrumented(exported, dsn):
    telemetry = exported.telemetry()
    async with asyncpg.create_pool(dsn, min_size=1, max_size=2) as pool:
        svc = asyncsvc.AsyncSvc(pool, settings=telemetry.instrument(Settings()))
        async with telemetry.observe(svc):
            await create(svc)
            limits = exported.values("db.client.connection.max", "db.client.connection.pool.name")
    assert limits == {"primary": 2}
    assert exported.spans("conversation/create_many")
