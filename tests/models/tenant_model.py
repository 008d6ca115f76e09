"""A model of the public API: the expected state of a tenant after each call, in plain Python.

A `Change` is one call of the API with its arguments. `apply` changes a `Tenant` as the call should
change the database. It returns the expected result or raises the expected error. The model is
written from the docstrings. `model` computes lists and statistics by creation; a
`ModelConversation` has the attributes that it needs.

Values that only the server knows (times, ids of tokens, secrets) are None until they are read.
"""

import copy
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncsvc
from asyncsvc import (
    ANY,
    AlreadyExists,
    Appended,
    Conflict,
    IdempotencyConflict,
    InsufficientScope,
    InvalidToken,
    NotFound,
    Services,
    StaleSequence,
)

COUNTED = ("pv", "tokens", "duration", "rounds", "thumb_up", "thumb_down")
NOWHERE = "nowhere"


@dataclass
class ModelConversation:
    """The expected state of a conversation."""

    id: str
    dialog_id: str
    user_id: str = ""
    exp_user_id: str | None = None
    name: str | None = None
    source: str | None = None
    version_title: str | None = None
    metadata: dict | None = None
    dsl: object = None
    errors: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    round: int = 0
    tokens: int = 0
    microseconds: int = 0
    last_seq: int = 0
    messages_by_seq: dict[int, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, tuple[dict, Appended]] = field(default_factory=dict)
    is_updated: bool = False  # since updated_at was read last

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.messages_by_seq.values())

    def thumb_count(self, thumb: int) -> int:
        return [message["thumb"] for message in self.messages].count(thumb)

    def row(self) -> dict[str, object]:
        """The fields of `export`, without times."""
        return {
            "id": self.id,
            "dialog_id": self.dialog_id,
            "user_id": self.user_id,
            "exp_user_id": self.exp_user_id,
            "name": self.name,
            "source": self.source,
            "version_title": self.version_title,
            "metadata": self.metadata,
            "dsl": self.dsl,
            "errors": self.errors,
            "round": self.round,
            "tokens": self.tokens,
            "duration": self.microseconds / 1_000_000,
            "thumb_up": self.thumb_count(1),
            "thumb_down": self.thumb_count(-1),
            "last_seq": self.last_seq,
            "messages": [
                {name: value for name, value in message.items() if name != "created_at"}
                for message in self.messages
            ],
        }


@dataclass
class Token:
    """The expected state of an API token, with its secret if it is known."""

    name: str
    kind: str = "api"
    scopes: tuple[str, ...] = ()
    dialog_id: str | None = None
    source: str | None = None
    metadata: dict = field(default_factory=dict)
    expires_at: datetime | None = None
    created_by: str | None = None
    rotated_from: str | None = None
    id: str | None = None
    secret: str | None = None
    end: str | None = None
    reason: str | None = None
    is_used: bool = False

    @property
    def status(self) -> str:
        if self.end == "revoked":
            return "revoked"
        if self.expires_at is not None and self.expires_at < datetime.now(UTC):
            return "expired"
        return self.end or "active"

    @property
    def is_good(self) -> bool:
        return self.status in {"active", "retiring"}

    def row(self) -> dict[str, object]:
        return {
            "id": self.id,
            "name": self.name,
            "kind": self.kind,
            "scopes": self.scopes,
            "dialog_id": self.dialog_id,
            "source": self.source,
            "metadata": self.metadata,
            "expires_at": self.expires_at,
            "created_by": self.created_by,
            "rotated_from": self.rotated_from,
            "status": self.status,
            "revoked_reason": self.reason,
        }


@dataclass
class Tenant:
    """The expected state of a tenant."""

    id: str
    foreign: dict[str, tuple[str, str]]  # imported secrets: tenant and kind. Both tenants share it.
    conversations: dict[str, ModelConversation] = field(default_factory=dict)
    tokens: list[Token] = field(default_factory=list)
    ledger: dict[tuple, Counter] = field(default_factory=dict)
    audit: list[tuple[str, Token, str | None]] = field(default_factory=list)

    def conversation(self, id: str) -> ModelConversation:
        if id not in self.conversations:
            raise NotFound("conversation")
        return self.conversations[id]

    def message(self, id: str, seq: int) -> dict[str, Any]:
        if seq not in self.conversation(id).messages_by_seq:
            raise NotFound("message")
        return self.conversations[id].messages_by_seq[seq]

    def record_usage(
        self, conversation: ModelConversation, token_id: str | None = None, **counts: int
    ) -> None:
        place = (conversation.dialog_id, conversation.source, token_id)
        self.ledger.setdefault(place, Counter()).update(counts)

    def usage(self, dialog_id: object, source: object, token_id: object) -> dict[str, int]:
        """Return the totals of statistics by activity."""
        filters = (dialog_id, source, token_id)
        matching = [
            counts
            for place, counts in self.ledger.items()
            if all(each in {ANY, value} for each, value in zip(filters, place, strict=True))
        ]
        return {name: sum(counts[name] for counts in matching) for name in COUNTED}

    def nth_token(self, nth: int) -> Token:
        """Return a token by number, so that a call can be generated before the token exists."""
        return self.tokens[nth % len(self.tokens)] if self.tokens else Token("", id=NOWHERE)

    def token(self, nth: int) -> Token:
        if not self.tokens:
            raise NotFound("token")
        return self.nth_token(nth)

    def revoke(self, tokens: Iterable[Token], reason: str | None, actor: str | None) -> int:
        ended = [token for token in tokens if token.end != "revoked"]
        for token in ended:
            token.end, token.reason = "revoked", reason
            self.audit.append(("revoke", token, actor))
        return len(ended)

    def delete(self, ids: Iterable[str]) -> list[ModelConversation]:
        return [self.conversations.pop(id) for id in list(ids) if id in self.conversations]


@dataclass(frozen=True)
class Change:
    """One call that may write."""

    def call(self, svc: Services, tenant: Tenant) -> Any:
        raise NotImplementedError

    def apply(self, tenant: Tenant) -> object:
        raise NotImplementedError

    def comparable(self, result: Any) -> object:
        """Return the part of the result to compare. The rest is read from the database later."""
        return result

    def adopt(self, tenant: Tenant, result: Any) -> None:
        """Store the values that only the result has."""


# ---------------------------------------------------------------- conversations


@dataclass(frozen=True)
class Create(Change):
    fields: dict[str, Any]

    def call(self, svc, tenant):
        return svc.conversations.create(tenant_id=tenant.id, **self.fields)

    def apply(self, tenant):
        if self.fields["id"] in tenant.conversations:
            raise AlreadyExists("")
        create(tenant, self.fields)
        return self.fields["id"]

    def comparable(self, result):
        return result.id


def create(tenant: Tenant, fields: dict[str, Any]) -> int:
    if fields["id"] in tenant.conversations:
        return 0
    conversation = tenant.conversations[fields["id"]] = ModelConversation(**copy.deepcopy(fields))
    conversation.updated_at = conversation.created_at
    tenant.record_usage(conversation, pv=1)
    return 1


@dataclass(frozen=True)
class CreateMany(Change):
    each: Sequence[dict[str, Any]]

    def call(self, svc, tenant):
        return svc.conversations.create_many(list(self.each), tenant_id=tenant.id)

    def apply(self, tenant):
        return sum(create(tenant, fields) for fields in self.each)


@dataclass(frozen=True)
class Append(Change):
    id: str
    turn: dict[str, Any]
    token_id: str | None = None
    key: str | None = None
    expected_seq: int | None = None

    def call(self, svc, tenant):
        return svc.conversations.append_message(
            self.id,
            self.turn | {"token_id": self.token_id},
            tenant_id=tenant.id,
            idempotency_key=self.key,
            expected_seq=self.expected_seq,
        )

    def apply(self, tenant):
        conversation = tenant.conversation(self.id)
        if self.key in conversation.keys:
            turn, answer = conversation.keys[self.key]
            if turn != self.turn:
                raise IdempotencyConflict("")
            return answer.model_copy(update={"replayed": True})
        if self.expected_seq not in {None, conversation.last_seq}:
            raise StaleSequence("")
        return self._append(tenant, conversation)

    def _append(self, tenant: Tenant, conversation: ModelConversation) -> Appended:
        turn, first = self.turn, conversation.last_seq + 1
        for message in turn["messages"]:
            conversation.last_seq += 1
            conversation.messages_by_seq[conversation.last_seq] = {
                "seq": conversation.last_seq,
                **({"payload": {}, "reference": None, "thumb": None} | message),
                "created_at": None,
            }
        cost = {
            "rounds": turn.get("round", 1),
            "tokens": turn.get("tokens", 0),
            "duration": round(turn.get("duration", 0) * 1_000_000),
        }
        conversation.round += cost["rounds"]
        conversation.tokens += cost["tokens"]
        conversation.microseconds += cost["duration"]
        conversation.errors = turn.get("errors", conversation.errors)
        conversation.dsl = turn.get("dsl", conversation.dsl)
        conversation.is_updated = True
        tenant.record_usage(conversation, self.token_id, **cost)
        answer = Appended(
            first_seq=first,
            last_seq=conversation.last_seq,
            round=conversation.round,
            replayed=False,
        )
        if self.key is not None:
            conversation.keys[self.key] = (turn, answer)
        return answer


@dataclass(frozen=True)
class UpdateConversations(Change):
    """Set columns of conversations, including the dialog and the user."""

    patches: dict[str, dict[str, Any]]
    is_bulk: bool

    def call(self, svc, tenant):
        if self.is_bulk:
            return svc.conversations.update_many_by_id(self.patches, tenant_id=tenant.id)
        ((id, patch),) = self.patches.items()
        return svc.conversations.update_by_id(id, patch, tenant_id=tenant.id)

    def apply(self, tenant):
        known = [id for id in self.patches if id in tenant.conversations]
        for id in known:
            for name, value in self.patches[id].items():
                setattr(tenant.conversations[id], name, value)
            tenant.conversations[id].is_updated = True
        if not known and not self.is_bulk:
            raise NotFound("conversation")
        return len(known)

    def comparable(self, result):
        return result if self.is_bulk else 1


@dataclass(frozen=True)
class SetFeedback(Change):
    id: str
    seq: int
    thumb: int | None

    def call(self, svc, tenant):
        return svc.conversations.set_feedback(self.id, self.seq, self.thumb, tenant_id=tenant.id)

    def apply(self, tenant):
        message = tenant.message(self.id, self.seq)
        old, message["thumb"] = message["thumb"], self.thumb
        tenant.record_usage(
            tenant.conversations[self.id],
            thumb_up=(self.thumb == 1) - (old == 1),
            thumb_down=(self.thumb == -1) - (old == -1),
        )
        return self.seq, self.thumb

    def comparable(self, result):
        return result.seq, result.thumb


@dataclass(frozen=True)
class UpdateMessage(Change):
    id: str
    seq: int
    patch: dict[str, Any]

    def call(self, svc, tenant):
        return svc.conversations.update_message(self.id, self.seq, self.patch, tenant_id=tenant.id)

    def apply(self, tenant):
        message = tenant.message(self.id, self.seq)
        message.update(self.patch)
        tenant.conversations[self.id].is_updated = True
        return message["content"]

    def comparable(self, result):
        return result.content


@dataclass(frozen=True)
class DeleteMessage(Change):
    id: str
    seq: int

    def call(self, svc, tenant):
        return svc.conversations.delete_message(self.id, self.seq, tenant_id=tenant.id)

    def apply(self, tenant):
        conversation = tenant.conversations.get(self.id)
        if conversation is None or conversation.messages_by_seq.pop(self.seq, None) is None:
            return 0
        conversation.is_updated = True
        return 1


@dataclass(frozen=True)
class PopMessage(Change):
    id: str

    def call(self, svc, tenant):
        return svc.conversations.pop_message(self.id, tenant_id=tenant.id)

    def apply(self, tenant):
        conversation = tenant.conversation(self.id)
        if not conversation.messages_by_seq:
            return None
        conversation.is_updated = True
        return conversation.messages_by_seq.popitem()[0]

    def comparable(self, result):
        return result and result.seq


@dataclass(frozen=True)
class ClearMessages(Change):
    id: str

    def call(self, svc, tenant):
        return svc.conversations.clear_messages(self.id, tenant_id=tenant.id)

    def apply(self, tenant):
        conversation = tenant.conversations.get(self.id)
        if conversation is None or not conversation.messages_by_seq:
            return 0
        deleted = len(conversation.messages_by_seq)
        conversation.messages_by_seq.clear()
        conversation.is_updated = True
        return deleted


@dataclass(frozen=True)
class DeleteIds(Change):
    ids: Sequence[str]

    def call(self, svc, tenant):
        if len(self.ids) == 1:
            return svc.conversations.delete_by_id(self.ids[0], tenant_id=tenant.id)
        return svc.conversations.delete_by_ids(self.ids, tenant_id=tenant.id)

    def apply(self, tenant):
        return len(tenant.delete(self.ids))


@dataclass(frozen=True)
class DeleteDialogs(Change):
    dialog_ids: Sequence[str]

    def call(self, svc, tenant):
        return svc.conversations.delete_by_dialog_ids(self.dialog_ids, tenant_id=tenant.id)

    def apply(self, tenant):
        deleted = [
            id
            for id, conversation in tenant.conversations.items()
            if conversation.dialog_id in self.dialog_ids
        ]
        return len(tenant.delete(deleted))


@dataclass(frozen=True)
class EraseUser(Change):
    user_id: str

    def call(self, svc, tenant):
        return svc.conversations.erase_user(self.user_id, tenant_id=tenant.id)

    def apply(self, tenant):
        deleted = tenant.delete(
            [
                id
                for id, conversation in tenant.conversations.items()
                if self.user_id in {conversation.user_id, conversation.exp_user_id}
            ]
        )
        return (
            len(deleted),
            sum(len(conversation.messages_by_seq) for conversation in deleted),
            sum(len(conversation.keys) for conversation in deleted),
        )

    def comparable(self, result):
        return result.conversations, result.messages, result.append_keys


@dataclass(frozen=True)
class Purge(Change):
    before: datetime
    by: str
    dialog_id: object
    dry_run: bool

    def call(self, svc, tenant):
        return svc.conversations.purge(
            self.before,
            tenant_id=tenant.id,
            by=self.by,
            dialog_id=self.dialog_id,
            dry_run=self.dry_run,
        )

    def apply(self, tenant):
        old = [
            conversation
            for conversation in tenant.conversations.values()
            if self.dialog_id in {ANY, conversation.dialog_id} and self._is_old(conversation)
        ]
        if not self.dry_run:
            tenant.delete([conversation.id for conversation in old])
        return len(old), sum(len(conversation.messages_by_seq) for conversation in old), 0

    def _is_old(self, conversation: ModelConversation) -> bool:
        at = conversation.created_at if self.by == "created_at" else conversation.updated_at
        # A time that was not read yet is that of the server's clock, which is today.
        is_today = at is None or (conversation.is_updated and self.by == "updated_at")
        return not is_today and at < self.before

    def comparable(self, result):
        return result.conversations, result.messages, result.skipped


@dataclass(frozen=True)
class CopyConversations(Change):
    """Export the conversations of a tenant and import them into another, or into itself."""

    origin: Tenant

    async def call(self, svc, tenant):
        exported = [each async for each in svc.conversations.export(tenant_id=self.origin.id)]
        return await svc.conversations.import_(
            exported, tenant_id=tenant.id, on_rejected=lambda *_: None
        )

    def apply(self, tenant):
        outcomes: Counter[str] = Counter()
        for conversation in list(self.origin.conversations.values()):
            outcome = "present" if conversation.id in tenant.conversations else "new"
            if outcome == "new":
                self._store(tenant, conversation)
                outcomes["messages"] += len(conversation.messages_by_seq)
            elif message_texts(
                tenant.conversations[conversation.id], max(conversation.messages_by_seq, default=0)
            ) != message_texts(conversation):
                outcome = "rejected"
            outcomes[outcome] += 1
        return tuple(outcomes[name] for name in ("new", "messages", "present", "rejected"))

    def _store(self, tenant: Tenant, conversation: ModelConversation) -> None:
        copied = tenant.conversations[conversation.id] = copy.deepcopy(conversation)
        copied.keys = {}
        tenant.record_usage(
            copied,
            pv=1,
            tokens=copied.tokens,
            duration=copied.microseconds,
            rounds=copied.round,
            thumb_up=copied.thumb_count(1),
            thumb_down=copied.thumb_count(-1),
        )

    def comparable(self, result):
        return result.conversations, result.messages, result.present, result.rejected


def message_texts(conversation: ModelConversation, last: int | None = None) -> list[tuple]:
    return [
        (message["seq"], message["role"], message["content"])
        for message in conversation.messages
        if last is None or message["seq"] <= last
    ]


@dataclass(frozen=True)
class Transaction(Change):
    """Several changes in one transaction, which commits or fails after the last change."""

    changes: Sequence[Change]
    fails: bool

    async def call(self, svc, tenant):
        async with svc.transaction() as tx:
            for change in self.changes:
                await change.call(tx, tenant)
            if self.fails:
                raise Conflict("on purpose")

    def apply(self, tenant):
        trial = copy.deepcopy(tenant)
        for change in self.changes:
            change.apply(trial)
        if self.fails:
            raise Conflict("on purpose")
        foreign = tenant.foreign  # shared with the other tenant
        foreign.clear()
        foreign.update(trial.foreign)
        vars(tenant).update(vars(trial), foreign=foreign)


# ---------------------------------------------------------------- tokens


@dataclass(frozen=True)
class CreateToken(Change):
    fields: dict[str, Any]
    actor: str | None

    def call(self, svc, tenant):
        return svc.tokens.create(tenant_id=tenant.id, actor=self.actor, **self.fields)

    def apply(self, tenant):
        token = Token(created_by=self.actor, **copy.deepcopy(self.fields))
        tenant.tokens.append(token)
        tenant.audit.append(("create", token, self.actor))
        return token.status

    def comparable(self, result):
        return result.token.status

    def adopt(self, tenant, result):
        tenant.tokens[-1].id = result.token.id
        tenant.tokens[-1].secret = result.secret.get_secret_value()


@dataclass(frozen=True)
class Rotate(Change):
    nth: int
    overlap: timedelta
    actor: str | None

    def call(self, svc, tenant):
        return svc.tokens.rotate(
            tenant.nth_token(self.nth).id,
            tenant_id=tenant.id,
            overlap=self.overlap,
            actor=self.actor,
        )

    def apply(self, tenant):
        token = tenant.token(self.nth)
        if token.status != "active":
            raise Conflict("")
        successor = copy.deepcopy(token)
        successor.id = successor.secret = None
        successor.is_used = False
        successor.created_by, successor.rotated_from = self.actor, token.id
        token.end = "retiring" if self.overlap else "revoked"
        token.reason = "rotated"
        tenant.tokens.append(successor)
        tenant.audit += [("rotate", token, self.actor), ("create", successor, self.actor)]
        return "active"

    def comparable(self, result):
        return result.token.status

    adopt = CreateToken.adopt


@dataclass(frozen=True)
class UpdateToken(Change):
    nth: int
    patch: dict[str, Any]
    actor: str | None

    def call(self, svc, tenant):
        return svc.tokens.update_by_id(
            tenant.nth_token(self.nth).id, self.patch, tenant_id=tenant.id, actor=self.actor
        )

    def apply(self, tenant):
        token = tenant.token(self.nth)
        for name, value in self.patch.items():
            setattr(token, name, value)
        tenant.audit.append(("update", token, self.actor))
        return token.status

    def comparable(self, result):
        return result.status


@dataclass(frozen=True)
class Revoke(Change):
    nth: int
    reason: str | None
    actor: str | None

    def call(self, svc, tenant):
        return svc.tokens.revoke(
            tenant.nth_token(self.nth).id,
            tenant_id=tenant.id,
            reason=self.reason,
            actor=self.actor,
        )

    def apply(self, tenant):
        token = tenant.token(self.nth)
        tenant.revoke([token], self.reason, self.actor)
        return token.status, token.reason

    def comparable(self, result):
        return result.status, result.revoked_reason


@dataclass(frozen=True)
class RevokeFamily(Revoke):
    def call(self, svc, tenant):
        return svc.tokens.revoke_family(
            tenant.nth_token(self.nth).id,
            tenant_id=tenant.id,
            reason=self.reason,
            actor=self.actor,
        )

    def apply(self, tenant):
        token = tenant.token(self.nth)
        return tenant.revoke(family(tenant.tokens, token), self.reason, self.actor)

    def comparable(self, result):
        return result


def family(tokens: Sequence[Token], member: Token) -> list[Token]:
    ids = {member.id}
    while more := {
        other
        for token in tokens
        for other in (token.id, token.rotated_from)
        if ids & {token.id, token.rotated_from} and other not in {None, *ids}
    }:
        ids |= more
    return [token for token in tokens if token.id in ids]


@dataclass(frozen=True)
class RevokeAll(Change):
    kind: object
    dialog_id: object
    keep: Sequence[int]
    reason: str | None

    def call(self, svc, tenant):
        return svc.tokens.revoke_all(
            tenant_id=tenant.id,
            kind=self.kind,
            dialog_id=self.dialog_id,
            keep=[tenant.nth_token(nth).id for nth in self.keep],
            reason=self.reason,
        )

    def apply(self, tenant):
        kept = [id(tenant.nth_token(nth)) for nth in self.keep]
        ended = [
            token
            for token in tenant.tokens
            if self.kind in {ANY, token.kind}
            and self.dialog_id in {ANY, token.dialog_id}
            and id(token) not in kept
        ]
        return tenant.revoke(ended, self.reason, None)


@dataclass(frozen=True)
class DeleteTokens(Change):
    def call(self, svc, tenant):
        return svc.tokens.delete_by_tenant_id(tenant_id=tenant.id, actor="end")

    def apply(self, tenant):
        deleted, tenant.tokens = tenant.tokens, []
        tenant.audit += [("delete", token, "end") for token in deleted]
        for secret in [each for each, (owner, _) in tenant.foreign.items() if owner == tenant.id]:
            del tenant.foreign[secret]
        return len(deleted)


@dataclass(frozen=True)
class ImportTokens(Change):
    secrets: Sequence[str]
    kind: str

    def call(self, svc, tenant):
        records = [
            {"secret": secret, "kind": self.kind, "name": secret[:8]} for secret in self.secrets
        ]
        return svc.tokens.import_(records, tenant_id=tenant.id, on_rejected=lambda *_: None)

    def apply(self, tenant):
        outcomes: Counter[str] = Counter()
        for secret in self.secrets:
            owner = tenant.foreign.setdefault(secret, (tenant.id, self.kind))
            outcome = "rejected" if owner != (tenant.id, self.kind) else "present"
            if outcome == "present" and not any(t.secret == secret for t in tenant.tokens):
                outcome = "new"
                token = Token(secret[:8], kind=self.kind, scopes=("*",), secret=secret)
                tenant.tokens.append(token)
                tenant.audit.append(("import", token, None))
            outcomes[outcome] += 1
        return tuple(outcomes[name] for name in ("new", "present", "rejected"))

    def comparable(self, result):
        return result.tokens, result.present, result.rejected


@dataclass(frozen=True)
class Verify(Change):
    nth: int
    kind: str
    scopes: Sequence[str]
    record_use: bool

    def call(self, svc, tenant):
        secret = tenant.nth_token(self.nth).secret or "unknown"
        return svc.tokens.verify(
            secret, kind=self.kind, scopes=self.scopes, record_use=self.record_use
        )

    def apply(self, tenant):
        token = tenant.nth_token(self.nth)
        if token.secret is None or token.kind != self.kind or not token.is_good:
            raise InvalidToken
        token.is_used |= self.record_use
        if not set(self.scopes) <= set(token.scopes) and "*" not in token.scopes:
            raise InsufficientScope("")
        return tenant.id, token.name

    def comparable(self, result):
        return result.tenant_id, result.name


@dataclass(frozen=True)
class Used(Change):
    nth: int

    def call(self, svc, tenant):
        return svc.tokens.used(tenant.nth_token(self.nth).secret or "unknown")

    def apply(self, tenant):
        token = tenant.nth_token(self.nth)
        is_good = token.secret is not None and token.is_good
        token.is_used |= is_good
        return is_good


# ---------------------------------------------------------------- the stored state


@dataclass
class StoredTenant:
    """The state of a tenant, as read by the public API."""

    conversations: list[asyncsvc.Conversation]
    tokens: list[asyncsvc.APIToken]
    audit: list[asyncsvc.TokenEvent]
    usage: dict[str, int]  # totals by activity, which include deleted conversations


def differences(tenant: Tenant, stored: StoredTenant) -> list[str]:
    """Return how the model and the database differ; adopt the values that only the server knows."""
    _adopt_tokens(tenant.tokens, stored.tokens)
    wrong = [
        *_differing_conversations(tenant, stored.conversations),
        *_differing_tokens(tenant, stored.tokens),
    ]
    ours = Counter((action, token.id, actor) for action, token, actor in tenant.audit)
    theirs = Counter((event.action, event.token_id, event.actor) for event in stored.audit)
    if ours != theirs:
        wrong.append(f"audit: model only {ours - theirs}, database only {theirs - ours}")
    if stored.usage != tenant.usage(ANY, ANY, ANY):
        wrong.append(f"usage: {tenant.usage(ANY, ANY, ANY)}, but {stored.usage}")
    return wrong


def _adopt_tokens(ours: Sequence[Token], theirs: Sequence[asyncsvc.APIToken]) -> None:
    new = sorted(
        (token for token in theirs if token.id not in {each.id for each in ours}),
        key=lambda token: token.created_at,
    )
    for token in ours:
        for each in new:
            if token.id is None and (each.name, each.rotated_from) == (
                token.name,
                token.rotated_from,
            ):
                token.id = each.id
                new.remove(each)
                break


def _differing_conversations(tenant: Tenant, theirs: Sequence[asyncsvc.Conversation]) -> list[str]:
    wrong = []
    if [each.id for each in theirs] != sorted(tenant.conversations):
        wrong.append(f"ids: {sorted(tenant.conversations)}, but {[each.id for each in theirs]}")
    for each in theirs:
        if each.id in tenant.conversations:
            wrong += _differing_conversation(tenant.conversations[each.id], each)
    return wrong


def _differing_conversation(
    conversation: ModelConversation, each: asyncsvc.Conversation
) -> list[str]:
    there = each.model_dump(exclude={"tenant_id", "created_at", "updated_at"})
    there["messages"] = [
        {name: value for name, value in message.items() if name != "created_at"}
        for message in there["messages"]
    ]
    wrong = [
        f"{conversation.id}.{name}: {value!r}, but {there[name]!r}"
        for name, value in conversation.row().items()
        if value != there[name]
    ]
    return wrong + _differing_instants(conversation, each)


def _differing_instants(conversation: ModelConversation, each: asyncsvc.Conversation) -> list[str]:
    created = conversation.created_at or each.created_at
    updated = conversation.updated_at or each.created_at
    wrong = []
    if each.created_at != created:
        wrong.append(f"{conversation.id}.created_at: {created}, but {each.created_at}")
    if (each.updated_at > updated) != conversation.is_updated or each.updated_at < updated:
        wrong.append(
            f"{conversation.id}.updated_at: {updated}, {conversation.is_updated}, {each.updated_at}"
        )
    for message, there in zip(conversation.messages, each.messages or (), strict=False):
        at = message["created_at"] or there.created_at
        if at != there.created_at or at > each.updated_at:
            wrong.append(
                f"{conversation.id}.{message['seq']}.created_at: {at}, but {there.created_at}"
            )
        message["created_at"] = at
    conversation.created_at, conversation.updated_at = created, each.updated_at
    conversation.is_updated = False
    return wrong


def _differing_tokens(tenant: Tenant, theirs: Sequence[asyncsvc.APIToken]) -> list[str]:
    ours = [token.row() | {"is_used": token.is_used} for token in tenant.tokens]
    there = [
        {name: getattr(each, name) for name in Token("").row()}
        | {"is_used": each.last_used_at is not None}
        for each in theirs
    ]
    wrong = [
        f"token: {mine!r}, but {other!r}"
        for mine, other in itertools.zip_longest(
            sorted(ours, key=lambda row: str(row["id"])), sorted(there, key=lambda row: row["id"])
        )
        if mine != other
    ]
    created = [each.created_at for each in theirs]
    if created != sorted(created, reverse=True):
        wrong.append(f"tokens are not newest first: {created}")
    return wrong
