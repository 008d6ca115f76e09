"""What calls do while a worker of Citus is down, and after its return.

These tests kill a worker, so they start a cluster of their own.
"""

import asyncio
import contextlib
import itertools
import os
import pathlib
import shutil
import tempfile

import asyncpg
import pytest
import pytest_asyncio

import asyncsvc
from asyncsvc import Settings, Unavailable
from asyncsvc.database.migration_files import migration_files, read_folder
from asyncsvc.operations import migrations
from benchmarks.cluster import join
from benchmarks.server import connected
from benchmarks.standby import Node, programs
from tests.support.registry import SERVICE_METHODS, furnish

SETTINGS = {
    "shared_preload_libraries": "citus",
    "max_prepared_transactions": "200",
    "citus.node_conninfo": "sslmode=disable",
}
WRITERS = 4
TURN = {"messages": [{"role": "user", "content": "hello"}]}
STORED = "SELECT count(*) FROM asyncsvc.message AS m WHERE m.tenant_id = $1"
UPGRADE = read_folder(pathlib.Path(__file__).parents[2] / "benchmarks" / "migrations")
MISSING_WORDS = "SELECT count(*) FROM asyncsvc.message AS m WHERE m.words IS NULL"
PORT = (
    "SELECT p.nodeport FROM pg_dist_shard_placement AS p WHERE p.shardid ="
    " get_shard_id_for_distribution_column('asyncsvc.conversation', $1::text)"
)

MOVE = (
    "SELECT citus_move_shard_placement(get_shard_id_for_distribution_column("
    "'asyncsvc.conversation', $1::text), '127.0.0.1', $2, '127.0.0.1', $3, 'block_writes')"
)
OF_ALL_ROWS = {"conversations.delete_tenant", "tokens.delete_by_tenant_id"}
"""Methods after which the others would find no row of the tenant."""


def has_citus() -> bool:
    """Return whether the installed PostgreSQL has the library of Citus."""
    folder = programs()
    return folder is not None and (folder.parent / "lib" / "citus.so").exists()


pytestmark = pytest.mark.skipif(not has_citus(), reason="Citus is not installed")


class Cluster:
    """A coordinator and 2 workers. The second one, `fragile`, is killed and started again."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.coordinator, self.stable, self.fragile = self.nodes = [
            Node(directory, name, fsync=False, settings=SETTINGS) for name in ("c", "one", "two")
        ]
        self.dsn = self.coordinator.dsn

    async def start(self) -> None:
        for node in self.nodes:
            await asyncio.to_thread(node.create)
            await asyncio.to_thread(node.start)
        await join(self.dsn, [self.stable.dsn, self.fragile.dsn])
        async with self.connected() as svc:
            await svc.migrate(citus=True)

    async def stop(self) -> None:
        for node in self.nodes:
            if node.is_running():
                await asyncio.to_thread(node.stop)

    @contextlib.asynccontextmanager
    async def without_a_worker(self):
        """Kill the processes of a worker by SIGQUIT, and start it again at the end."""
        await asyncio.to_thread(self.fragile.stop, "immediate")
        try:
            yield
        finally:
            await asyncio.to_thread(self.fragile.start)

    @contextlib.asynccontextmanager
    async def connected(self, **settings: float):
        async with asyncsvc.connect(self.dsn, settings=Settings(citus=True, **settings)) as svc:
            yield svc

    async def move(self, tenant: str, target: Node) -> None:
        """Move the shards of a tenant to a node, and drop the old ones."""
        async with connected(self.dsn) as connection, asyncio.timeout(300):
            source = await connection.fetchval(PORT, tenant)
            while await connection.fetchval(PORT, tenant) != target.port:
                with contextlib.suppress(asyncpg.DeadlockDetectedError):
                    await connection.execute(MOVE, tenant, source, target.port)
            await connection.execute("CALL citus_cleanup_orphaned_resources()")

    async def tenants(self, node: Node, count: int) -> list[str]:
        """Return new tenants whose rows the node stores."""
        tenants = []
        async with connected(self.dsn) as connection:
            while len(tenants) < count:
                tenant = f"t{next(_numbers)}"
                if await connection.fetchval(PORT, tenant) == node.port:
                    tenants.append(tenant)
        return tenants


_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster():
    with tempfile.TemporaryDirectory(prefix="asyncsvc-citus-", ignore_cleanup_errors=True) as name:
        directory = pathlib.Path(name)
        if os.geteuid() == 0:
            shutil.chown(directory, "nobody")
        cluster = Cluster(directory)
        try:
            await cluster.start()
            yield cluster
        finally:
            await cluster.stop()


async def outcome(svc, method, tenant) -> str:
    """Return "ok", or the name of the error of the valid call."""
    try:
        await method.run(svc, method.arguments(tenant))
    except asyncsvc.AsyncSvcError as error:
        return type(error).__name__
    return "ok"


async def test_a_lost_node_stops_its_own_tenants_and_the_calls_that_need_all_nodes(cluster):
    methods = {str(method): method for method in SERVICE_METHODS}
    async with cluster.connected(retry_timeout=0) as svc:
        names = await cluster.tenants(cluster.stable, len(methods))
        served = dict(zip(methods, [await furnish(svc, name) for name in names], strict=True))
        lost = await furnish(svc, (await cluster.tenants(cluster.fragile, 1))[0])
        async with cluster.without_a_worker():
            of_served = {
                name: await outcome(svc, method, served[name]) for name, method in methods.items()
            }
            of_lost = {name: await outcome(svc, method, lost) for name, method in methods.items()}
            for call in (svc.maintain, svc.backlog):
                with pytest.raises(Unavailable):
                    await call()
            await svc.check()
            assert await svc.migrate() == []
            assert "workers" in {each.check for each in await svc.doctor() if each.level != "ok"}
    assert {name: each for name, each in of_served.items() if each != "ok"} == {}
    assert {name: each for name, each in of_lost.items() if each != "Unavailable"} == {}


async def test_keyed_appends_are_repeated_until_a_killed_worker_returns(cluster):
    """Each turn is stored once, whether its first attempt was applied or not."""
    turns = dict.fromkeys(await cluster.tenants(cluster.fragile, WRITERS), 0)
    is_over = asyncio.Event()

    async def write(svc, tenant: str) -> None:
        await svc.conversations.create(id="c", dialog_id="d", tenant_id=tenant)
        while not is_over.is_set():
            await svc.conversations.append_message(
                "c", TURN, tenant_id=tenant, idempotency_key=str(turns[tenant])
            )
            turns[tenant] += 1

    retries = list[str]()
    settings = {"retry_timeout": 300, "on_retry": lambda name, *_: retries.append(name)}
    async with cluster.connected(**settings) as svc, asyncio.TaskGroup() as group:
        for tenant in turns:
            group.create_task(write(svc, tenant))
        await until(lambda: min(turns.values()) > 3)
        async with cluster.without_a_worker():
            await until(lambda: len(retries) >= WRITERS)
        before = min(turns.values())
        await until(lambda: min(turns.values()) > before + 3)
        is_over.set()
    async with connected(cluster.dsn) as connection:
        assert turns == {each: await connection.fetchval(STORED, each) for each in turns}


async def test_calls_during_moves_of_their_tenant_raise_no_error_of_the_database(cluster):
    """They raise Unavailable, or an error of the application, since each call is repeated."""
    (tenant,) = await cluster.tenants(cluster.stable, 1)
    methods = [each for each in SERVICE_METHODS if str(each) not in OF_ALL_ROWS]
    outcomes, is_over = set[str](), asyncio.Event()

    async def call(svc, furnished, some) -> None:
        while not is_over.is_set():
            for method in some:
                outcomes.add(await outcome(svc, method, furnished))

    async with cluster.connected(retry_timeout=0) as svc, asyncio.TaskGroup() as group:
        furnished = await furnish(svc, tenant)
        for number in range(WRITERS):
            group.create_task(call(svc, furnished, methods[number::WRITERS]))
        for target in (cluster.fragile, cluster.stable):
            await cluster.move(tenant, target)
        is_over.set()
    assert "ok" in outcomes
    assert outcomes.isdisjoint({"DatabaseError", "MigrationError", "ConcurrentUse"})


async def test_a_backfill_needs_all_nodes_and_continues_after_their_return(cluster, monkeypatch):
    column, backfill, _ = UPGRADE
    (tenant,) = await cluster.tenants(cluster.fragile, 1)
    async with cluster.connected(lock_timeout=60) as svc:
        await svc.conversations.create(id="c", dialog_id="d", tenant_id=tenant)
        await svc.conversations.append_message("c", TURN, tenant_id=tenant)
        for file in (column, backfill):
            files = (*migration_files(), *UPGRADE[: UPGRADE.index(file) + 1])
            monkeypatch.setattr(migrations, "migration_files", lambda files=files: files)
            async with cluster.without_a_worker():
                with pytest.raises(Unavailable):
                    await svc.migrate()
            assert [each.version for each in await svc.migrate()] == [file.version]
    async with connected(cluster.dsn) as connection:
        assert await connection.fetchval(MISSING_WORDS) == 0


async def until(condition) -> None:
    async with asyncio.timeout(300):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_worker_that_does_not_answer_ends_calls_by_the_statement_timeout(cluster):
    (lost,), (served,) = [
        await cluster.tenants(node, 1) for node in (cluster.fragile, cluster.stable)
    ]
    async with cluster.connected(retry_timeout=0) as svc:
        for tenant in (lost, served):
            await svc.conversations.create(id="c", dialog_id="d", tenant_id=tenant)
        cluster.fragile.freeze()
        try:
            async with (
                asyncio.timeout(200),
                cluster.connected(retry_timeout=0, statement_timeout=2) as impatient,
            ):
                for call in calls(impatient, lost):
                    with pytest.raises(Unavailable):
                        await call
            for call in calls(svc, served):
                await call
        finally:
            cluster.fragile.thaw()
        for call in calls(svc, lost):
            await call


def calls(svc, tenant: str):
    yield svc.conversations.append_message("c", TURN, tenant_id=tenant)
    yield svc.conversations.update_by_id("c", {"name": "n"}, tenant_id=tenant)
    yield svc.conversations.get_list(tenant_id=tenant)
