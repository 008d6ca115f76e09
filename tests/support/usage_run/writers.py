"""Tasks that change the conversations and the usage of a tenant in every way."""

import contextlib
from collections.abc import Callable, Mapping
from decimal import Decimal

import asyncsvc
from asyncsvc import NotFound, Turn, Usage
from tests.models.clocks import DAY
from tests.models.state import Conversation
from tests.support.usage import counters_of, random_usage
from tests.support.usage_run.world import ACTING, DIALOGS, SOURCES, TENANTS, TOKENS, USERS, World


class Writer:
    """One task that changes the conversations of a tenant."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.tenant_id = TENANTS[number % len(TENANTS)]
        self.tenant = {"tenant_id": self.tenant_id}
        self.conversations = world.svc.conversations
        self.chance = world.chance

    async def work(self) -> None:
        operations = {
            self.create: 5, self.append: 8, self.append_usages: 4, self.record_usage: 3,
            self.adjust_usage: 1, self.set_feedback: 3, self.delete_messages: 2, self.move: 3,
            self.delete: 2.5, self.import_: 1, self.roll_back: 1, self.erase: 0.1, self.purge: 0.05,
        }  # fmt: skip
        while self.world.left > 0:
            self.world.left -= 1
            (operation,) = self.chance.choices(list(operations), list(operations.values()))
            with contextlib.suppress(NotFound):
                await operation()

    async def create(self) -> None:
        rows = [self.world.new_conversation() for _ in range(self.chance.choice((1, 1, 3)))]
        await self.conversations.create_many(rows, **self.tenant)
        for fields in rows:
            self.world.record_creation(self.tenant_id, fields)

    async def append(self) -> None:
        id, token_id = self.world.id(self.tenant_id), self.chance.choice(TOKENS)
        costs = {"tokens": self.chance.randrange(9), "rounds": self.chance.randrange(2)}
        costs["duration"] = self.chance.randrange(10**6)
        turn = Turn(
            messages=[{"role": "user", "content": "?"}] * 2,
            tokens=costs["tokens"],
            duration=costs["duration"] / 10**6,
            round=costs["rounds"],
            token_id=token_id,
        )
        stored = await self.locked(id, lambda tx: tx.append_message(id, turn, **self.tenant))
        kind = "unpriced" if costs["tokens"] else "unmetered"
        without_cost = 1 if costs["tokens"] else costs["rounds"]
        self.record(stored, {**costs, kind: without_cost}, token_id=token_id)

    async def append_usages(self) -> None:
        id, usages = self.world.id(self.tenant_id), self.usages()
        acting = {"token_id": self.chance.choice(TOKENS), "user_id": self.chance.choice(ACTING)}
        message = {"role": "user", "content": "?"}
        turn = Turn(messages=[message], usage=usages, duration=0.25, round=1, **acting)
        stored = await self.locked(id, lambda tx: tx.append_message(id, turn, **self.tenant))
        self.record(stored, {"rounds": 1, "duration": 250_000}, model=usages[0].model, **acting)
        self.record_usages(stored, usages, **acting)

    async def record_usage(self) -> None:
        id, usages = self.world.id(self.tenant_id), self.usages()
        acting = {"token_id": self.chance.choice(TOKENS), "user_id": self.chance.choice(ACTING)}
        more = {"conversation_id": id, "idempotency_key": f"{self.chance.getrandbits(64)}"}

        async def record(conversations) -> None:
            for _ in range(2):  # the second call is a retry
                await conversations.record_usage(usages, **more, **acting, **self.tenant)

        self.record_usages(await self.locked(id, record), usages, **acting)

    async def adjust_usage(self) -> None:
        usage, rounds = random_usage(self.chance), self.chance.randrange(-2, 3)
        change = {name: -value for name, value in counters_of(usage).items()} | {"rounds": rounds}
        place = self.world.new_conversation()
        of = {name: place[name] for name in ("dialog_id", "source", "user_id")}
        adjustment = {name: value for name, value in change.items() if name != "tokens"}
        adjustment |= {"cost": -(usage.cost or Decimal(0)), "model": usage.model}
        await self.conversations.adjust_usage(
            adjustment, actor="a", reason="r", token_id="key", **of, **self.tenant
        )
        self.record(Conversation("", **of), change, token_id="key", model=usage.model)

    def usages(self) -> list[Usage]:
        return [random_usage(self.chance) for _ in range(self.chance.choice((1, 1, 3)))]

    def record_usages(
        self, stored: asyncsvc.Conversation, usages: list[Usage], **acting: object
    ) -> None:
        for usage in usages:
            self.record(stored, counters_of(usage), model=usage.model, **acting)

    async def set_feedback(self) -> None:
        id, thumb = self.world.id(self.tenant_id), self.chance.choice((1, -1, None))
        before, seq = None, None

        async def change(conversations) -> None:
            nonlocal before, seq
            messages = await conversations.messages(id, last=1, **self.tenant)
            if messages:
                before, seq = messages[0].thumb, messages[0].seq
                await conversations.set_feedback(id, seq, thumb, **self.tenant)

        stored = await self.locked(id, change)
        if seq is not None:
            up, down = (thumb == 1) - (before == 1), (thumb == -1) - (before == -1)
            self.record(stored, {"thumb_up": up, "thumb_down": down})

    async def locked(self, id: str, change: Callable) -> asyncsvc.Conversation:
        """Change a locked conversation; return it with the dialog and source that it had then."""
        async with self.world.svc.transaction() as tx:
            stored = await tx.conversations.update_by_id(id, {"name": "locked"}, **self.tenant)
            await change(tx.conversations)
        return stored

    def record(
        self, stored: asyncsvc.Conversation, counters: Mapping[str, int], **options: object
    ) -> None:
        self.world.committed.conversations.record_activity(
            self.tenant_id, stored, counters, **options
        )

    async def delete_messages(self) -> None:
        id = self.world.id(self.tenant_id)
        methods = (self.conversations.pop_message, self.conversations.clear_messages)
        await self.chance.choice(methods)(id, **self.tenant)

    async def move(self) -> None:
        patch = {
            "dialog_id": self.chance.choice(DIALOGS),
            "source": self.chance.choice(SOURCES),
            "user_id": self.chance.choice(USERS),
        }
        some = dict(self.chance.sample(sorted(patch.items()), self.chance.randint(1, 3)))
        await self.conversations.update_by_id(self.world.id(self.tenant_id), some, **self.tenant)

    async def delete(self) -> None:
        ids = self.world.ids[self.tenant_id]
        deleted = self.chance.sample(ids, min(len(ids), self.chance.choice((1, 2, 8))))
        await self.conversations.delete_by_ids(deleted, **self.tenant)
        for id in deleted:
            with contextlib.suppress(ValueError):  # another writer was faster
                ids.remove(id)

    async def import_(self) -> None:
        fields = self.world.new_conversation()
        messages = [{"role": "user", "content": "x", "thumb": 1}]
        record = fields | {"tokens": 5, "duration": 1.5, "round": 2, "messages": messages}
        report = await self.conversations.import_([record], **self.tenant)
        assert report.conversations == 1
        costs = {"tokens": 5, "duration": 1_500_000, "rounds": 2, "unpriced": 1}
        self.world.record_creation(self.tenant_id, fields, thumb_up=1, **costs)

    async def roll_back(self) -> None:
        fields = self.world.new_conversation()
        with contextlib.suppress(ZeroDivisionError):
            async with self.world.svc.transaction() as tx:
                await tx.conversations.create(**fields, **self.tenant)
                turn = Turn(messages=[{"role": "user", "content": "?"}], tokens=1_000)
                await tx.conversations.append_message(fields["id"], turn, **self.tenant)
                raise ZeroDivisionError

    async def erase(self) -> None:
        await self.conversations.erase_user("joe", **self.tenant)

    async def purge(self) -> None:
        before = self.world.instant() - 300 * DAY
        await self.conversations.purge(before, by="created_at", **self.tenant)
