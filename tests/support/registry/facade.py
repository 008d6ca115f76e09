"""The entries of the facade, `svc` itself."""

import asyncpg

from tests.support.registry.method import Method


class UnusedConnection(asyncpg.Connection):
    """A connection to no server. No call uses it."""

    def __init__(self) -> None: ...

    def __del__(self) -> None: ...


FACADE = [
    Method(name="transaction", call={}, cost="nothing", round_trips=2, tenant="none"),
    Method(
        name="on",
        call={"connection": UnusedConnection()},
        cost="nothing",
        round_trips=0,
        tenant="none",
    ),
    Method(name="at_least", call={"position": "0/0"}, cost="nothing", round_trips=0, tenant="none"),
    Method(name="close", call={}, cost="nothing", round_trips=0, tenant="none"),
    Method(name="pool_stats", call={}, cost="nothing", round_trips=0, tenant="none"),
    Method(name="position", call={}, cost="nothing", tenant="none"),
    Method(name="applied", call={}, cost="nothing", round_trips=2, tenant="none"),
    Method(name="pending", call={}, cost="nothing", round_trips=2, tenant="none"),
    Method(name="migration_plan", call={}, cost="nothing", round_trips=4, tenant="none"),
    Method(name="check", call={}, cost="nothing", round_trips=3, tenant="none"),
    Method(
        name="migrate",
        call={"citus": False, "on_batch": None},
        cost="nothing",
        round_trips=7,
        tenant="none",
    ),
    Method(
        name="maintain",
        call={"on_batch": None},
        cost="database",
        round_trips=20,
        writes=True,
        tenant="none",
    ),
    Method(name="backlog", call={}, cost="database", tenant="none"),
    Method(
        name="doctor",
        call={},
        cost="database",
        round_trips=17,
        tenant="none",
        reports_errors=True,
    ),
    Method(
        name="explain",
        call={"name": "conversation/get_list", "present": ["user_id"], "values": {"user_id": "u"}},
        cost="nothing",
        round_trips=4,
        tenant="none",
        unchecked=frozenset({"name"}),
    ),
]
