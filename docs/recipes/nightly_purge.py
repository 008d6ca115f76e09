"""Delete old conversations every night: count first, delete in batches, report the progress."""

import asyncio
import logging
import os
from datetime import UTC, datetime, timedelta

import asyncsvc
from asyncsvc import NewConversation, PurgeReport

DSN = os.environ["ASYNCSVC_DSN"]
RETENTION = {"acme": timedelta(days=90), "globex": timedelta(days=365)}
MAX_DELETED = 1_000_000  # more than this in a night is a mistake in RETENTION
log = logging.getLogger("purge")


def progress(report: PurgeReport) -> None:
    log.info("deleted %s conversations so far", report.conversations)


async def purge(svc: asyncsvc.AsyncSvc, tenant_id: str, age: timedelta) -> PurgeReport:
    """Delete the conversations of a tenant that are older than its age."""
    expected = await svc.conversations.purge(age, tenant_id=tenant_id, dry_run=True)
    if expected.conversations > MAX_DELETED:
        raise RuntimeError(f"{tenant_id}: {expected.conversations} conversations would be deleted")
    return await svc.conversations.purge(age, tenant_id=tenant_id, on_batch=progress)


async def main() -> None:
    async with asyncsvc.connect(DSN, max_size=1) as svc:
        long_ago = datetime.now(UTC) - timedelta(days=100)
        new = [NewConversation(dialog_id="support", created_at=long_ago) for _ in range(3)]
        await svc.conversations.create_many(new, tenant_id="acme")
        for tenant_id, age in RETENTION.items():
            report = await purge(svc, tenant_id, age)
            print(tenant_id, report.conversations, "deleted,", report.skipped, "skipped")
        # > acme 3 deleted, 0 skipped
        # > globex 0 deleted, 0 skipped


if __name__ == "__main__":
    asyncio.run(main())
