"""The model of `API4ConversationService`."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from asyncsvc import (
    ANY,
    AlreadyExists,
    FoundMessage,
    IdempotencyConflict,
    ImportReport,
    InvalidInput,
    NotFound,
    StaleSequence,
)
from tests.models.clocks import (
    range_of_bounds,
)
from tests.models.state import (
    COUNTERS,
    MESSAGE,
    SERVER_TIME,
    Conversation,
    Row,
    Unknown,
    conversation_of_record,
    matches,
    message_row,
    message_rows,
    now,
    set_columns,
)
from tests.models.usage_model import UsageModel

TURN = {"tokens": 0, "duration": 0.0, "round": 1}
SORT_KEYS: Mapping[str, Callable[[Conversation], Any]] = {
    "created_at": lambda each: each.created_at,
    "updated_at": lambda each: each.updated_at,
    "name": lambda each: each.name,
    "round": lambda each: each.round,
    "tokens": lambda each: each.tokens,
    "duration": lambda each: each.microseconds,
    "thumb_up": lambda each: each.count(1),
}


class ConversationModel(UsageModel):
    """The conversations of all tenants."""

    # ------------------------------------------------------------ conversations

    def create(self, *, tenant_id, **fields) -> Row:
        if not self.create_many([fields], tenant_id=tenant_id):
            raise AlreadyExists
        return self._tenants[tenant_id].conversations[fields["id"]].row()

    def create_many(self, conversations, *, tenant_id) -> int:
        return sum(
            self._add(tenant_id, Conversation(**copy.deepcopy(fields))) for fields in conversations
        )

    def _add(self, tenant_id: str, conversation: Conversation) -> bool:
        """Store a conversation unless its id exists; count its usage at its creation."""
        tenant = self._tenants[tenant_id]
        if conversation.id in tenant.conversations:
            return False
        tenant.conversations[conversation.id] = conversation
        conversation.updated_at = conversation.updated_at or conversation.created_at
        at = conversation.created_at or now()
        self.record_activity(tenant_id, conversation, conversation.counters, at=at)
        return True

    def get_by_id(self, id, *, tenant_id, user_id=ANY, **include) -> Row:
        return self._tenants[tenant_id].conversation(id, user_id).row(**include)

    def get_by_ids(self, ids, *, tenant_id, **include) -> list[Row]:
        conversations = self._tenants[tenant_id].conversations
        return [conversations[id].row(**include) for id in ids if id in conversations]

    def upsert(self, id, new, *, tenant_id, patch=None, user_id=ANY) -> Row:
        if user_id not in {ANY, new["user_id"]}:
            raise InvalidInput("new.user_id", "")
        if self.create_many([new | {"id": id}], tenant_id=tenant_id):
            return self.get_by_id(id, tenant_id=tenant_id)
        if patch is None:
            patch = {name: new[name] for name in new.keys() - {"dialog_id", "created_at"}}
        return self.update_by_id(id, patch, tenant_id=tenant_id, user_id=user_id)

    def update_by_id(self, id, patch, *, tenant_id, user_id=ANY) -> Row:
        conversation = self._tenants[tenant_id].conversation(id, user_id)
        self.update_many_by_id({id: patch}, tenant_id=tenant_id)
        return conversation.row()

    def update_many_by_id(self, patches, *, tenant_id) -> int:
        conversations = self._tenants[tenant_id].conversations
        updated = [id for id in patches if id in conversations]
        for id in updated:
            conversations[id].set(patches[id])
        return len(updated)

    # ------------------------------------------------------------ lists and searches

    def get_list(
        self,
        *,
        tenant_id,
        dialog_id=ANY,
        orderby="created_at",
        desc=True,
        id=ANY,
        user_id=ANY,
        keywords="",
        from_date=None,
        to_date=None,
        exp_user_id=ANY,
        thumb=ANY,
        metadata=ANY,
        tz="UTC",
        **include,
    ) -> list[Row]:
        since, until = range_of_bounds(from_date, to_date, tz)
        time = SORT_KEYS["updated_at" if orderby == "updated_at" else "created_at"]
        conversations = [
            each
            for each in self._tenants[tenant_id].conversations.values()
            if matches(dialog_id, each.dialog_id)
            and matches(id, each.id)
            and matches(user_id, each.user_id)
            and matches(exp_user_id, each.exp_user_id)
            and (thumb is ANY or each.count(thumb) > 0)
            and (metadata in (ANY, {}) or has_members(each.metadata, metadata))
            and since <= time(each) < until
            and (not keywords or each.contains(keywords))
        ]
        return [
            each.row(**include) for each in ordered(conversations, SORT_KEYS[orderby], desc=desc)
        ]

    def search(self, keywords, *, tenant_id, dialog_id=ANY, user_id=ANY) -> list[Row]:
        conversations = ordered(
            self._tenants[tenant_id].conversations.values(), SORT_KEYS["created_at"], desc=True
        )
        return [
            hit(each, keywords)
            for each in conversations
            if matches(dialog_id, each.dialog_id)
            and matches(user_id, each.user_id)
            and any(contains(message, keywords) for message in each.messages.values())
        ]

    def find_message(self, message_id, *, tenant_id, dialog_id=ANY, user_id=ANY) -> Row:
        matching = [
            (each, message)
            for each in self._tenants[tenant_id].conversations.values()
            if matches(dialog_id, each.dialog_id)
            and matches(user_id, each.user_id)
            and (message := each.message(message_id))
        ]
        if not matching:
            raise NotFound("message")
        # The time of a message without one is that of its append.
        known = all(message["created_at"] for _, message in matching)
        if len(matching) > 1 and not known:
            return Unknown(FoundMessage)
        conversation, message = max(matching, key=lambda each: (each[1]["created_at"], each[0].id))
        return {"conversation": conversation.row(), "message": message_row(message)}

    def list_dialogs(self, *, tenant_id) -> list[Row]:
        counts = Counter(each.dialog_id for each in self._tenants[tenant_id].conversations.values())
        return [
            {"dialog_id": dialog_id, "conversations": count, "updated_at": SERVER_TIME}
            for dialog_id, count in sorted(counts.items())
        ]

    def get_names(self, *, tenant_id, exp_user_id, dialog_id=ANY) -> list[Row]:
        rows = self.get_list(tenant_id=tenant_id, dialog_id=dialog_id, exp_user_id=exp_user_id)
        return [{"id": row["id"], "name": row["name"]} for row in rows]

    # ------------------------------------------------------------ messages

    def messages(
        self, id, *, tenant_id, after=None, before=None, last=None, user_id=ANY
    ) -> list[Row]:
        tenant = self._tenants[tenant_id]
        rows = message_rows(tenant.conversation(id, user_id))
        for bound, sign in ((after, 1), (before, -1)):
            if bound is not None:
                seq = tenant.message(id, bound)["seq"] if isinstance(bound, str) else bound
                rows = [row for row in rows if row["seq"] * sign > seq * sign]
        return rows if last is None else rows[-last:]

    def payloads(self, id, *, tenant_id, last=None, limit=None, **bounds) -> list[Row]:
        if None not in {last, limit}:
            raise InvalidInput("limit", "")
        rows = self.messages(id, tenant_id=tenant_id, **bounds)[:limit]
        first = 0 if last is None else max(0, len(rows) - last)
        return [row["payload"] for row in rows[first:]]

    def iter_messages(self, id, *, tenant_id, **bounds) -> list[Row]:
        return self.messages(id, tenant_id=tenant_id, **bounds)

    def get_message(self, id, message, *, tenant_id, user_id=ANY) -> Row:
        return message_row(self._tenants[tenant_id].message(id, message, user_id))

    def put_message(self, id, message, *, tenant_id, patch=None, create=None, user_id=ANY) -> Row:
        if create is not None and user_id not in {ANY, create["user_id"]}:
            raise InvalidInput("create.user_id", "")
        if create is not None:
            self.create_many([create | {"id": id}], tenant_id=tenant_id)
        conversation = self._tenants[tenant_id].conversation(id, user_id)
        message = MESSAGE | {"created_at": None} | copy.deepcopy(message)
        stored = conversation.message(message["id"])
        if stored is not None and patch is not None:
            return self.update_message(id, message["id"], patch, tenant_id=tenant_id)
        if stored is None:
            conversation.last_seq += 1
            message["seq"] = conversation.last_seq
        else:
            kept = {"seq": stored["seq"], "thumb": stored["thumb"]}
            message |= kept | {"created_at": message["created_at"] or stored["created_at"]}
        conversation.messages[message["seq"]] = message
        conversation.is_updated = True
        return message_row(message)

    def append_message(
        self,
        id,
        turn,
        *,
        tenant_id,
        idempotency_key=None,
        expected_seq=None,
        create=None,
        user_id=ANY,
    ) -> Row:
        if create is not None and user_id not in {ANY, create["user_id"]}:
            raise InvalidInput("create.user_id", "")
        is_new = False
        if create is not None and expected_seq in {None, 0}:
            is_new = bool(self.create_many([create | {"id": id}], tenant_id=tenant_id))
        conversation = self._tenants[tenant_id].conversation(id, user_id)
        turn = TURN | turn | {"messages": [MESSAGE | each for each in turn["messages"]]}
        token_id = turn.pop("token_id", None)
        if idempotency_key in conversation.keys:
            first_turn, result = conversation.keys[idempotency_key]
            if turn != first_turn:
                raise IdempotencyConflict
            return result | {"replayed": True}
        if any(each["id"] and conversation.message(each["id"]) for each in turn["messages"]):
            raise AlreadyExists
        if expected_seq not in {None, conversation.last_seq}:
            raise StaleSequence
        first_seq = conversation.last_seq + 1
        for conversation.last_seq, message in enumerate(turn["messages"], first_seq):
            conversation.messages[conversation.last_seq] = {
                "seq": conversation.last_seq, "created_at": None, **copy.deepcopy(message)
            }  # fmt: skip
        costs = {
            "rounds": turn["round"],
            "tokens": turn["tokens"],
            "duration": round(turn["duration"] * 1_000_000),
        }
        conversation.round += costs["rounds"]
        conversation.tokens += costs["tokens"]
        conversation.microseconds += costs["duration"]
        columns = turn.keys() & {"errors", "dsl", "merge_dsl", "merge_metadata"}
        conversation.set({name: turn[name] for name in columns})
        # Of a new conversation both times are those of the statement, unless it has its own.
        conversation.is_updated = not is_new or conversation.created_at is not None
        self.record_activity(tenant_id, conversation, costs, token_id=token_id)
        result = {
            "first_seq": first_seq,
            "last_seq": conversation.last_seq,
            "round": conversation.round,
            "replayed": False,
        }
        if idempotency_key is not None:
            conversation.keys[idempotency_key] = (turn, result)
        return result

    def set_feedback(
        self, id, message, thumb, *, tenant_id, merge_payload=None, user_id=ANY
    ) -> Row:
        message = self._tenants[tenant_id].message(id, message, user_id)
        set_columns(message, {"merge_payload": merge_payload or {}})
        conversation = self._tenants[tenant_id].conversation(id)
        before = conversation.counters
        message["thumb"] = thumb
        changes = {name: conversation.counters[name] - before[name] for name in COUNTERS}
        self.record_activity(tenant_id, conversation, changes)
        return message_row(message)

    def update_message(self, id, message, patch, *, tenant_id, user_id=ANY) -> Row:
        message = self._tenants[tenant_id].message(id, message, user_id)
        set_columns(message, patch)
        self._tenants[tenant_id].conversation(id).is_updated = True
        return message_row(message)

    def delete_message(self, id, message, *, tenant_id, user_id=ANY) -> int:
        try:
            seq = self._tenants[tenant_id].message(id, message, user_id)["seq"]
        except NotFound:
            return 0
        return self._delete_messages(tenant_id, id, [seq])

    def pop_message(self, id, *, tenant_id, user_id=ANY) -> Row | None:
        messages = self._tenants[tenant_id].conversation(id, user_id).messages
        if not messages:
            return None
        newest = message_row(messages[max(messages)])
        self._delete_messages(tenant_id, id, [newest["seq"]])
        return newest

    def clear_messages(self, id, *, tenant_id, user_id=ANY, after=None, before=None) -> int:
        conversation = self._tenants[tenant_id].conversations.get(id)
        if conversation is None or not matches(user_id, conversation.user_id):
            return 0
        rows = self.messages(id, tenant_id=tenant_id, after=after, before=before)
        return self._delete_messages(tenant_id, id, [row["seq"] for row in rows])

    def _delete_messages(self, tenant_id: str, id: str, seqs: Sequence[int]) -> int:
        conversation = self._tenants[tenant_id].conversations.get(id)
        if conversation is None:
            return 0
        deleted = [seq for seq in seqs if conversation.messages.pop(seq, None)]
        conversation.is_updated |= bool(deleted)
        return len(deleted)

    # ------------------------------------------------------------ deletions

    def delete_by_id(self, id, *, tenant_id, user_id=ANY) -> int:
        conversation = self._tenants[tenant_id].conversations.get(id)
        if conversation is None or not matches(user_id, conversation.user_id):
            return 0
        return self.delete_by_ids([id], tenant_id=tenant_id)

    def delete_by_ids(self, ids, *, tenant_id) -> int:
        conversations = self._tenants[tenant_id].conversations
        return len([conversations.pop(id) for id in ids if id in conversations])

    def delete_by_dialog_ids(self, dialog_ids, *, tenant_id) -> int:
        return self._delete(tenant_id, lambda each: each.dialog_id in dialog_ids)["conversations"]

    def erase_user(self, user_id, *, tenant_id) -> Row:
        counts = self._delete(tenant_id, lambda each: user_id in {each.user_id, each.exp_user_id})
        counts["records"] = self._delete_records(tenant_id, user_id)
        return counts | {"tenant_id": tenant_id, "user_id": user_id, "erased_at": SERVER_TIME}

    def delete_tenant(self, *, tenant_id) -> Row:
        """Delete the tenant with its tokens, whose deletions are events too."""
        counts = self._delete(tenant_id, lambda _: True)
        counts["records"] = self._delete_records(tenant_id)
        tenant = self._tenants.pop(tenant_id)
        return counts | {
            "tenant_id": tenant_id,
            "tokens": len(tenant.tokens),
            "audit_events": len(tenant.audit) + len(tenant.tokens),
            "usage_rows": Unknown(int),
            "deleted_at": SERVER_TIME,
        }

    def _delete_records(self, tenant_id: str, user_id: object = ANY) -> int:
        records = self._tenants[tenant_id].records
        owned = [key for key, each in records.items() if matches(user_id, each["user_id"])]
        for key in owned:
            del records[key]
        return len(owned)

    def purge(
        self,
        older_than,
        *,
        tenant_id,
        dialog_id=ANY,
        user_id=ANY,
        by="updated_at",
        dry_run=False,
        tz="UTC",
    ) -> Row:
        is_age = isinstance(older_than, timedelta)
        before = now() - older_than if is_age else range_of_bounds(older_than, None, tz).since

        def is_old(each: Conversation) -> bool:
            # A time that was not read yet is the time of this call.
            updated_at = None if each.is_updated else each.updated_at
            at = (each.created_at if by == "created_at" else updated_at) or now()
            is_of_user = matches(user_id, each.user_id)
            return is_of_user and matches(dialog_id, each.dialog_id) and at < before

        counts = self._delete(tenant_id, is_old, dry_run=dry_run)
        del counts["append_keys"]
        return counts | {
            "before": SERVER_TIME if is_age else before, "dry_run": dry_run, "skipped": 0
        }  # fmt: skip

    def _delete(
        self, tenant_id: str, condition: Callable[[Conversation], bool], *, dry_run: bool = False
    ) -> Row:
        tenant = self._tenants[tenant_id]
        deleted = [each for each in tenant.conversations.values() if condition(each)]
        if not dry_run:
            self.delete_by_ids([each.id for each in deleted], tenant_id=tenant_id)
        return {
            "conversations": len(deleted),
            "messages": sum(len(each.messages) for each in deleted),
            "append_keys": sum(len(each.keys) for each in deleted),
        }

    # ------------------------------------------------------------ export and import

    def export(
        self,
        *,
        tenant_id,
        dialog_id=ANY,
        user_id=ANY,
        split=False,  # noqa: ARG002 - a parameter of the service
    ) -> list[Row]:
        """Return whole conversations; all are too short for `split`."""
        conversations = [
            each
            for each in self._tenants[tenant_id].conversations.values()
            if matches(dialog_id, each.dialog_id) and matches(user_id, each.user_id)
        ]
        by_id = dialog_id is ANY and user_id is ANY
        key = (lambda each: each.id) if by_id else SORT_KEYS["created_at"]
        return [each.row(include_messages=True) for each in ordered(conversations, key, desc=False)]

    def import_(self, records, *, tenant_id, update=False) -> Row:
        """Store records or the rows of `export`. Differing records are rejected, not raised."""
        assert not update
        report = dict.fromkeys(ImportReport.model_fields, 0)
        for record in records:
            conversation = conversation_of_record(record)
            if self._add(tenant_id, conversation):
                report["conversations"] += 1
                report["messages"] += len(conversation.messages)
                continue
            stored = self._tenants[tenant_id].conversations[conversation.id]
            last = max(conversation.messages, default=0)
            is_equal = message_texts(stored, last) == message_texts(conversation, last)
            report["present" if is_equal else "rejected"] += 1
        return report


def ordered(
    conversations: Iterable[Conversation], key: Callable[[Conversation], Any], *, desc: bool
) -> list[Conversation]:
    """Sort by a key and by id. Conversations whose key is None come last in both directions."""
    by_id = sorted(conversations, key=lambda each: each.id, reverse=desc)
    keyed = [each for each in by_id if key(each) is not None]
    keyed.sort(key=key, reverse=desc)
    return keyed + [each for each in by_id if key(each) is None]


def has_members(value: Row | None, members: Row) -> bool:
    return value is not None and all(
        name in value and value[name] == each for name, each in members.items()
    )


def contains(message: Row, keywords: str) -> bool:
    return keywords.lower() in message["content"].lower()


def hit(conversation: Conversation, keywords: str) -> Row:
    """Return the fields of `asyncsvc.Hit` for the first message with the keywords."""
    message = next(each for each in conversation.messages.values() if contains(each, keywords))
    start = message["content"].lower().index(keywords.lower())
    return {
        "id": conversation.id,
        "dialog_id": conversation.dialog_id,
        "name": conversation.name,
        "created_at": conversation.created_at,
        "seq": message["seq"],
        "snippet": message["content"][max(start - 40, 0) : start + len(keywords) + 40],
    }


def message_texts(conversation: Conversation, last: int) -> list[tuple]:
    return [
        (seq, message["role"], message["content"])
        for seq, message in conversation.messages.items()
        if seq <= last
    ]
