"""Replace the secret of a token without an outage."""

import asyncio
import os
from datetime import timedelta

import asyncsvc

DSN = os.environ["ASYNCSVC_DSN"]


async def main() -> None:
    async with asyncsvc.connect(DSN) as svc:
        old = await svc.tokens.create(tenant_id="acme", name="web shop", scopes=["chat"])

        # Both secrets are valid for 2 hours. Deploy the new one in this time.
        new = await svc.tokens.rotate(
            old.token.id, tenant_id="acme", overlap=timedelta(hours=2), actor="deploy"
        )
        print([await svc.tokens.used(issued.secret) for issued in (old, new)])
        # > [True, True]

        # All clients have the new secret: end the old one before its time.
        await svc.tokens.revoke(old.token.id, tenant_id="acme", actor="deploy")
        print([await svc.tokens.used(issued.secret) for issued in (old, new)])
        # > [False, True]

        events = await svc.tokens.audit(tenant_id="acme")
        print([(event.action, event.actor) for event in reversed(events.items)])
        # > [('create', None), ('rotate', 'deploy'), ('create', 'deploy'), ('revoke', 'deploy')]


if __name__ == "__main__":
    asyncio.run(main())
