"""Delete a tenant with everything it has, and keep a receipt."""

import asyncio
import logging
import os

import asyncsvc
from asyncsvc import InvalidToken, TenantReceipt

DSN = os.environ["ASYNCSVC_DSN"]
log = logging.getLogger("delete_tenant")


def progress(receipt: TenantReceipt) -> None:
    """Log the counts after each batch. A large tenant takes a while."""
    log.info("%s: %d conversations so far", receipt.tenant_id, receipt.conversations)


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        issued = await svc.tokens.create(tenant_id="acme", name="web shop")
        await svc.conversations.create(tenant_id="acme", dialog_id="support")

        # If the call is interrupted, call it again: it continues.
        receipt = await svc.conversations.delete_tenant(tenant_id="acme", on_batch=progress)
        print(receipt.conversations, "conversation,", receipt.tokens, "token")
        # > 1 conversation, 1 token
        print("at", receipt.deleted_at)
        # > at 20...
        try:
            await svc.tokens.verify(issued.secret)
        except InvalidToken as error:
            print(error)
            # > the token is not valid


if __name__ == "__main__":
    asyncio.run(main())
