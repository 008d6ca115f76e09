"""The dashboard of `examples/monitoring`, against the metrics that Prometheus really reads."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import asyncsvc
from asyncsvc import Settings
from asyncsvc.integrations.opentelemetry import Telemetry
from tests.support.citus import END_WAITING, execute_each

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "monitoring"
DASHBOARD = json.loads((EXAMPLE / "dashboard.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "guides" / "monitoring.md").read_text(encoding="utf-8")
OWN = r"\b(?:db_client|asyncsvc)_\w+"
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
EXPRESSIONS = [
    pytest.param(target["expr"], target["legendFormat"], id=f"{title}-{target['refId']}")
    for title, panel in PANELS.items()
    for target in panel["targets"]
]
ALERTS = re.findall(r"^\| [^|]+ \| `(.+?)`", PAGE.partition("| alert |")[2], re.MULTILINE)
TURN = {"messages": [{"role": "user", "content": "hello"}]}
WAIT = 60  # the guard against an event that does not come
FAIL = """
    CREATE FUNCTION asyncsvc.fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'broken'; END $$;
    CREATE TRIGGER fail BEFORE UPDATE ON asyncsvc.message
        FOR EACH ROW EXECUTE FUNCTION asyncsvc.fail()
"""


@pytest.fixture
async def exposition(dsn, pool):
    """The labels of each sample, by its name, after every kind of event has happened."""
    reader = PrometheusMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    telemetry = Telemetry(meter_provider=provider)
    settings = telemetry.instrument(Settings(acquire_timeout=3, maintenance_interval=0.05))
    try:
        async with (
            asyncio.timeout(WAIT),
            asyncsvc.connect(dsn, settings=settings, max_size=1) as svc,
            telemetry.observe(svc, interval=0.05),
        ):
            await cause_events(svc, pool)
            names = {name for each in EXPRESSIONS for name in metrics_of(each.values[0])}
            while not names <= (samples := read_samples()).keys():
                await asyncio.sleep(0.05)
            yield samples
    finally:
        provider.shutdown()


def metrics_of(expression):
    without_labels = re.sub(r"by \([^)]*\)", "", expression)
    return set(re.findall(OWN + r"(?=[{)\[])", without_labels))


async def cause_events(svc, pool):
    """Cause a retry, a timeout of the pool, and failures of maintenance."""
    await svc.conversations.create(tenant_id="acme", dialog_id="d", id="a")
    async with pool.acquire() as connection:
        async with connection.transaction():
            await connection.execute("LOCK TABLE asyncsvc.conversation")
            task = asyncio.create_task(svc.conversations.get_by_id("a", tenant_id="acme"))
            while not await pool.fetchval(END_WAITING):
                await asyncio.sleep(0.01)
        await task
    async with svc.transaction():
        with pytest.raises(asyncsvc.PoolExhausted):
            await svc.conversations.get_by_id("a", tenant_id="acme")
    await execute_each(pool, FAIL)
    await svc.conversations.append_message("a", TURN, tenant_id="acme")


def read_samples():
    families = text_string_to_metric_families(generate_latest(REGISTRY).decode())
    labels = {}
    for family in families:
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


@pytest.mark.damages
async def test_every_metric_and_label_of_the_dashboard_and_of_the_page_exists(exposition):
    for expression, legend in [*(each.values for each in EXPRESSIONS), *((a, "") for a in ALERTS)]:
        names = metrics_of(expression)
        assert names, expression
        assert names <= exposition.keys(), expression
        labels = set().union(*(exposition[name] for name in names))
        selected = re.findall(r"(\w+)(?:=~|!=|=)\"", expression)
        grouped = re.split(r"[ ,]+", ", ".join(re.findall(r"by \(([^)]+)\)", expression)))
        shown = re.findall(r"{{(\w+)}}", legend)
        assert {*selected, *filter(None, grouped)} <= {*labels, "instance"}, expression
        assert {*shown} <= {*grouped}, expression


@pytest.mark.damages
async def test_the_page_documents_every_metric(exposition):
    row = r"^\| `([a-z_.]+)` \| (histogram|counter|gauge|up-down)"
    documented = re.findall(row, PAGE, re.MULTILINE)
    suffixes = {
        "counter": ["_total"],
        "histogram": ["_seconds_bucket", "_seconds_sum", "_seconds_count"],
    }
    seconds = {"asyncsvc.maintenance.lag": ["_seconds"]}
    assert {name for name in exposition if re.match(OWN, name)} == {
        name.replace(".", "_") + suffix
        for name, kind in documented
        for suffix in seconds.get(name, suffixes.get(kind, [""]))
    }


def test_each_panel_has_an_expression_and_a_place_of_its_own():
    places = set()
    for panel in PANELS.values():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & places, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        places |= cells
        assert panel["targets"], panel["title"]
    assert len(PANELS) == len(DASHBOARD["panels"])
    assert len({panel["id"] for panel in PANELS.values()}) == len(PANELS)


# ---------------------------------------------------------------- the example, Prometheus


@contextlib.asynccontextmanager
async def running_example(dsn):
    """Run the example with its server at a free port, and yield the port."""
    port = free_port()
    code = (
        f"import asyncio; from examples.monitoring import service; service.PORT = {port};"
        " asyncio.run(service.main())"
    )
    async with running(sys.executable, "-W", "error", "-c", code, ASYNCSVC_DSN=dsn):
        yield port


@contextlib.asynccontextmanager
async def running(*command, **environment):
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=os.environ | environment)
    try:
        yield
    finally:
        assert process.returncode is None
        process.kill()
        await process.wait()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


async def fetch(url):
    """Return the body of the response, or nothing while no server answers."""

    def read():
        with (
            contextlib.suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(url, timeout=WAIT) as response,
        ):
            return response.read().decode()
        return ""

    return await asyncio.to_thread(read)


async def test_the_example_serves_its_metrics(dsn):
    expected = 'db_client_operation_duration_seconds_count{db_query_summary="message/get_list"'
    async with asyncio.timeout(WAIT), running_example(dsn) as port:
        while expected not in await fetch(f"http://127.0.0.1:{port}/metrics"):
            await asyncio.sleep(0.1)


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
async def test_prometheus_evaluates_each_expression(dsn, tmp_path):
    server = f"127.0.0.1:{free_port()}"
    async with asyncio.timeout(5 * WAIT), running_example(dsn) as port:
        configuration = (EXAMPLE / "prometheus.yml").read_text(encoding="utf-8")
        configuration = configuration.replace("9464", str(port)).replace("15s", "200ms")
        (tmp_path / "prometheus.yml").write_text(configuration)
        options = {"config.file": "prometheus.yml", "storage.tsdb.path": "data"}
        files = [f"--{name}={tmp_path / value}" for name, value in options.items()]
        async with running("prometheus", *files, f"--web.listen-address={server}"):
            while not await query(
                server, "sum(rate(db_client_operation_duration_seconds_count[5s]))"
            ):
                await asyncio.sleep(0.2)
            for expression in [*(each.values[0] for each in EXPRESSIONS), *ALERTS]:
                await query(server, expression)
            for title in ("Statements", "Failed statements", "95th percentile", "Connections"):
                for target in PANELS[title]["targets"]:
                    assert await query(server, target["expr"]), title


async def query(server, expression):
    """Return the series of an expression. Prometheus rejects an invalid one."""
    expression = expression.replace("$__rate_interval", "5s").replace("$instance", ".*")
    parameters = urllib.parse.urlencode({"query": expression})
    body = await fetch(f"http://{server}/api/v1/query?{parameters}")
    if not body:
        return []
    answer = json.loads(body)
    assert answer["status"] == "success", answer
    return answer["data"]["result"]
