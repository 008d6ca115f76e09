"""Change tokens and conversations in one transaction."""

import asyncio
import os

import asyncsvc

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        async with svc.transaction() as tx:
            issued = await tx.tokens.create(tenant_id="acme", name="widget", scopes=["chat"])
            chat = await tx.conversations.create(
                tenant_id="acme", dialog_id="support", metadata={"token": issued.token.id}
            )
            try:
                async with tx.transaction() as savepoint:  # nested: only this part is rolled back
                    await savepoint.conversations.create(
                        tenant_id="acme", dialog_id="support", id=chat.id
                    )
            except asyncsvc.AlreadyExists as error:
                print(error)
                # > the tenant has a conversation with this id
        page = await svc.conversations.get_list(tenant_id="acme")
        print(page.total, page.items[0].metadata == {"token": issued.token.id})
        # > 1 True


if __name__ == "__main__":
    asyncio.run(main())
