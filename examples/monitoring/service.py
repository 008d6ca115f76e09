"""A program that stores and reads conversations, and serves its metrics for Prometheus.

Run it with `python examples/monitoring/service.py`; `ASYNCSVC_DSN` names a migrated database. The
metrics are at http://127.0.0.1:9464/metrics, where the configuration `prometheus.yml` reads them.
Grafana imports `dashboard.json`.
"""

import asyncio
import logging
import os
import random

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import start_http_server

import asyncsvc
from asyncsvc import Message, Settings, Turn
from asyncsvc.integrations.opentelemetry import Telemetry

PORT = 9464
TENANT = "acme"
USERS = 8

log = logging.getLogger("chats")


async def chat(svc: asyncsvc.AsyncSvc, user: str) -> None:
    """Store and read turns of a user, without an end."""
    conversation = await svc.conversations.create(
        tenant_id=TENANT, dialog_id="support", user_id=user
    )
    while True:
        try:
            await take_turn(svc, conversation.id, user)
        except asyncsvc.Unavailable as error:
            log.warning("a turn failed: %s", error)
        await asyncio.sleep(random.uniform(0, 0.5))  # noqa: S311 - not a secret


async def take_turn(svc: asyncsvc.AsyncSvc, id: str, user: str) -> None:
    """Store a question, and read what a page of the user shows."""
    turn = Turn(messages=[Message(role="user", content="Where is my parcel?")])
    await svc.conversations.append_message(id, turn, tenant_id=TENANT)
    await svc.conversations.messages(id, tenant_id=TENANT, last=20)
    await svc.conversations.get_list(tenant_id=TENANT, user_id=user, items_per_page=10)


async def main() -> None:
    """Serve the metrics, and run the chats until the program is stopped."""
    reader = PrometheusMetricReader()
    telemetry = Telemetry(meter_provider=MeterProvider(metric_readers=[reader]))
    settings = telemetry.instrument(Settings())
    start_http_server(PORT, "127.0.0.1")
    async with (
        asyncsvc.connect(os.environ["ASYNCSVC_DSN"], settings=settings, max_size=4) as svc,
        telemetry.observe(svc, interval=15),
        asyncio.TaskGroup() as group,
    ):
        for number in range(USERS):
            group.create_task(chat(svc, f"user-{number}"))


if __name__ == "__main__":
    asyncio.run(main())
