"""A model of the store: the public methods over plain Python objects.

`Model` mirrors `AsyncSvc`: `model.conversations`, `model.tokens` and `model.records` have each
public method of the services, with the same name and parameters. A method makes the expected
change in the model, and returns the expected result or raises the expected error. The model follows
the docstrings and shares no code with the library, except errors and `ANY`.

- A result has the fields that the model knows. It is a dictionary in place of a pydantic model, and
  a list of all items in place of a page; `differences` compares both forms. Therefore methods have
  no parameters that choose a page, and no callbacks.
- The server's clock and the library choose some values: times, and ids and secrets of tokens. These
  values are None in the model until `adopt` copies them from the store. In a result such a time is
  `SERVER_TIME`.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import asyncsvc
from asyncsvc import AsyncSvc, Services
from tests.models.comparison import differences, totals
from tests.models.conversation_model import ConversationModel
from tests.models.record_model import RECORD_KINDS, RecordModel
from tests.models.state import Conversation, Row, Tenant, Token
from tests.models.token_model import TokenModel

EVER = {"from_date": "2000-01-01", "to_date": "2099-12-31", "interval": "month", "fill": False}


class Model:
    """The tenants of a store."""

    def __init__(self) -> None:
        self.tenants: defaultdict[str, Tenant] = defaultdict(Tenant)
        self.conversations = ConversationModel(self.tenants)
        self.tokens = TokenModel(self.tenants)
        self.records = RecordModel(self.tenants)

    def maintain(self) -> Row:
        """Change nothing: no idempotency key is old enough to be deleted."""
        return {"append_keys": 0}


async def import_both(svc: AsyncSvc, model: Model, tenant_id: str, records: Sequence[Row]) -> None:
    """Import conversations into the store and into the model."""
    report = await svc.conversations.import_(records, tenant_id=tenant_id)
    assert differences(model.conversations.import_(records, tenant_id=tenant_id), report) == []


# ---------------------------------------------------------------- the whole state of a tenant


@dataclass
class Stored:
    """The state of a tenant, as the public methods return it."""

    conversations: list[asyncsvc.Conversation]
    tokens: list[asyncsvc.APIToken]
    audit: list[asyncsvc.TokenEvent]
    records: list[asyncsvc.Record]
    activity: dict[str, float]


async def read_tenant(svc: Services, tenant_id: str) -> Stored:
    return Stored(
        [each async for each in svc.conversations.export(tenant_id=tenant_id)],
        (await svc.tokens.get_list(tenant_id=tenant_id, limit=1_000)).items,
        (await svc.tokens.audit(tenant_id=tenant_id, limit=1_000)).items,
        [
            each
            for kind in RECORD_KINDS
            for each in (await svc.records.list(kind, tenant_id=tenant_id)).items
        ],
        totals(await svc.conversations.stats(tenant_id=tenant_id, basis="activity", **EVER)),
    )


def adopt(model: Model, tenant_id: str, stored: Stored) -> list[str]:
    """Copy the values that only the store knows; return the differences of model and store."""
    tenant = model.tenants[tenant_id]
    adopt_tokens(tenant.tokens, stored.tokens)
    wrong_times = [
        line
        for each in stored.conversations
        if each.id in tenant.conversations
        for line in adopt_times(tenant.conversations[each.id], each)
    ]
    events = [(event.at, event.id) for event in stored.audit]
    activity = model.conversations.stats(tenant_id=tenant_id, basis="activity", **EVER)
    by_kind = [model.records.list(kind, tenant_id=tenant_id) for kind in RECORD_KINDS]
    records = [each for kind in by_kind for each in kind]
    return [
        *wrong_times,
        *differences(model.conversations.export(tenant_id=tenant_id), stored.conversations),
        *differences(model.tokens.get_list(tenant_id=tenant_id), stored.tokens, "tokens"),
        *differences(records, stored.records, "records"),
        *event_differences(model.tokens.audit(tenant_id=tenant_id), stored.audit),
        *differences(sorted(events, reverse=True), events, "order of the audit"),
        *differences(totals(activity), stored.activity, "activity"),
    ]  # fmt: skip


def adopt_tokens(tokens: Sequence[Token], stored: Sequence[asyncsvc.APIToken]) -> None:
    """Copy the ids and times of new tokens."""
    known = {token.id for token in tokens}
    new = sorted(
        (each for each in stored if each.id not in known), key=lambda each: each.created_at
    )
    for token in tokens:
        name = (token.name, token.rotated_from)
        equal = [each for each in new if (each.name, each.rotated_from) == name]
        if token.id is None and equal:
            new.remove(equal[0])
            token.id, token.created_at = equal[0].id, token.created_at or equal[0].created_at


def adopt_times(conversation: Conversation, stored: asyncsvc.Conversation) -> list[str]:
    """Copy new times. `updated_at` must have increased if and only if the model expects it."""
    updated_at = conversation.updated_at or stored.created_at
    is_right = stored.updated_at > updated_at if conversation.is_updated else (
        stored.updated_at == updated_at
    )  # fmt: skip
    conversation.created_at = conversation.created_at or stored.created_at
    conversation.updated_at, conversation.is_updated = stored.updated_at, False
    wrong = [] if is_right else [f"{stored.id}.updated_at: {updated_at}, {stored.updated_at}"]
    times = {message.seq: message.created_at for message in stored.messages or ()}
    for seq, message in conversation.messages.items():
        message["created_at"] = message["created_at"] or times.get(seq)
        if message["created_at"] and message["created_at"] > stored.updated_at:
            wrong.append(f"{stored.id}.{seq}: it is newer than updated_at")
    return wrong


def event_differences(expected: list[Row], actual: list[asyncsvc.TokenEvent]) -> list[str]:
    """Compare events of an audit. Events of one statement have no order, so equal ones count."""
    counts = [
        Counter((event["action"], event["token_id"], event["actor"]) for event in events)
        for events in (expected, map(dict, actual))
    ]
    return differences(*counts, "audit")
