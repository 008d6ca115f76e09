"""The entries of `svc.conversations`."""

from datetime import timedelta

from asyncsvc import ANY
from tests.support.registry import counting
from tests.support.registry.counting import repeated, search, search_in_300, valid
from tests.support.registry.examples import (
    CONVERSATION,
    CONVERSATION_PATCH,
    MESSAGE,
    MESSAGE_PATCH,
    NEW_CONVERSATION,
    RECORD,
    TURN,
    TURN_WITHOUT_IDS,
)
from tests.support.registry.method import VALID, Method, Write, only, with_

CONVERSATIONS = [
    Method(
        name="conversations.create",
        call=CONVERSATION,
        cost="row",
        writes=True,
        accepts_none=frozenset({"id", "exp_user_id"}),
    ),
    Method(
        name="conversations.create_many",
        call={"conversations": [CONVERSATION]},
        cost="row",
        writes=True,
        cancelled=[
            Write({"conversations": [{"id": id, "dialog_id": "d"} for id in ("a", "y", "z")]})
        ],
    ),
    Method(
        name="conversations.get_list",
        call={
            "dialog_id": "d",
            "page_number": 1,
            "items_per_page": 10,
            "orderby": "created_at",
            "desc": True,
            "id": "a",
            "user_id": "u",
            "include_dsl": True,
            "keywords": "k",
            "from_date": "2026-01-01",
            "to_date": "2026-12-31",
            "exp_user_id": "e",
            "thumb": 1,
            "metadata": {"label": "l"},
            "after": None,
            "after_id": None,
            "total": "exact",
            "include_messages": False,
            "tz": "UTC",
        },
        cost="page",
        round_trips=[
            (1, valid(keywords="")),
            (1, valid(keywords="", after_id="a")),
            (2, valid(after_id="a")),
            (1, valid(after_id="absent")),
            (1, valid(keywords="", dialog_id="absent", include_messages=True)),
            (
                2,
                valid(
                    keywords="",
                    exp_user_id=ANY,
                    thumb=ANY,
                    metadata=ANY,
                    from_date=None,
                    to_date=None,
                    include_messages=True,
                ),
            ),
        ],
        isolation=[
            VALID,
            only("dialog_id", include_messages=True, keywords="theirs"),
            only("dialog_id", include_messages=True, keywords=""),
            only("dialog_id"),
            only("dialog_id", after_id="record"),
            only("dialog_id", after_id="record", keywords="h"),
            only(),
        ],
        accepts_none=frozenset({"after_id"}),
    ),
    Method(
        name="conversations.search",
        call={
            "keywords": "hello",
            "dialog_id": "d",
            "user_id": "u",
            "after": None,
            "limit": 5,
            "total": "exact",
        },
        cost="batches",
        round_trips=[
            (1, search("nothing there")),
            (2, search("hello")),
            (2, search("nothing there", total="capped")),
            (2, search_in_300("nothing there")),
            (3, search_in_300("long ago")),
            (4, search_in_300("lately")),
            (4, search_in_300("long ago", total="exact")),
        ],
        isolation=[
            VALID,
            only("dialog_id", total="exact", keywords="theirs"),
            only("dialog_id", total="exact", keywords="h"),
            only(total="exact", keywords="h"),
        ],
    ),
    Method(
        name="conversations.get_by_id",
        call={"id": "a", "user_id": "u", "include_dsl": True, "include_messages": True},
        cost="row",
    ),
    Method(
        name="conversations.get_by_ids",
        call={"ids": ["a"], "include_dsl": True, "include_messages": True},
        cost="row",
    ),
    Method(
        name="conversations.list_dialogs",
        call={"after": None, "limit": 5},
        cost="page",
    ),
    Method(
        name="conversations.get_names",
        call={"dialog_id": "d", "exp_user_id": "e", "limit": 5},
        cost="page",
        isolation=[VALID, only("exp_user_id")],
    ),
    Method(
        name="conversations.messages",
        call={
            "id": "a",
            "after": 1,
            "before": "m4",
            "last": None,
            "limit": 5,
            "user_id": "u",
        },
        cost="page",
        isolation=[VALID, only("id"), with_(before=None, user_id="theirs")],
    ),
    Method(
        name="conversations.iter_messages",
        call={"id": "a", "after": 1, "before": "m4", "user_id": "u"},
        cost="batches",
        round_trips=[(1, valid(after=3)), (2, valid()), (2, valid(after=None, before=None))],
        isolation=[VALID, only("id")],
    ),
    Method(
        name="conversations.get_message",
        call={"id": "a", "message": "m1", "user_id": "u"},
        cost="row",
        isolation=[VALID, only("id", "message"), only("id", message=1)],
    ),
    Method(
        name="conversations.find_message",
        call={"message_id": "m1", "dialog_id": "d", "user_id": "u"},
        cost="row",
        isolation=[VALID, only("message_id")],
    ),
    Method(
        name="conversations.payloads", call={"id": "a", "user_id": "u", "newest": 2}, cost="page"
    ),
    Method(
        name="conversations.append_message",
        call={
            "id": "a",
            "turn": TURN,
            "idempotency_key": "k",
            "expected_seq": None,
            "create": NEW_CONVERSATION,
            "user_id": "u",
        },
        cost="row",
        round_trips=[
            (1, valid(idempotency_key=None, create=None)),
            (1, valid()),
            (1, valid(id="absent")),
            (1, valid(id="absent", idempotency_key=None)),
            (2, repeated()),
            (2, valid(id="absent", create=None)),
            (2, valid(id="absent", expected_seq=1)),
            (2, valid(expected_seq=1)),
            (2, valid(user_id="v", create=None)),
            (2, valid(user_id="v", create=NEW_CONVERSATION | {"user_id": "v"})),
            (3, counting.append_while_the_conversation_is_created),
            (6, counting.append_while_the_conversation_is_deleted_and_created),
        ],
        writes=True,
        is_retried=True,  # the valid call has a key
        isolation=[
            with_(idempotency_key="theirs", expected_seq=1),
            VALID,
            with_(idempotency_key=None),
            with_(create=None),
        ],
        cancelled=[
            Write(
                {"idempotency_key": None, "create": None, "turn": TURN_WITHOUT_IDS},
                is_repeatable=False,
            ),
            Write(),
            Write({"id": "absent"}),
            Write({"expected_seq": 2}),
        ],
    ),
    Method(
        name="conversations.update_by_id",
        call={"id": "a", "patch": CONVERSATION_PATCH, "user_id": "u"},
        cost="row",
        round_trips=[
            (1, valid(patch={"name": "n"})),
            (1, valid(patch={"merge_metadata": {"a": 1}})),
            (1, valid(patch={"merge_metadata": {"a": "x" * 2**19, "b": "x" * (2**19 - 20)}})),
            (1, valid(patch={"name": "n"}, user_id="v")),
            (4, valid()),
        ],
        writes=True,
        cancelled=[Write({"patch": {"name": "new", "merge_dsl": {"a": {"b": None}}}})],
    ),
    Method(
        name="conversations.upsert",
        call={"id": "a", "new": NEW_CONVERSATION, "patch": None, "user_id": "u"},
        cost="row",
        round_trips=[
            (1, valid()),
            (1, valid(id="absent")),
            (1, valid(patch={"merge_dsl": {"a": 1}})),
            (1, valid(id="absent", patch={"merge_dsl": {"a": 1}})),
            (2, counting.upsert_while_the_conversation_is_created),
            (2, valid(user_id="v", new=NEW_CONVERSATION | {"user_id": "v"})),
            (4, valid(patch=CONVERSATION_PATCH)),
        ],
        writes=True,
        isolation=[VALID, with_(patch=CONVERSATION_PATCH), with_(id="absent")],
        cancelled=[
            Write(),
            Write({"id": "absent"}, is_repeatable=False),  # a second call sets updated_at
            Write({"patch": CONVERSATION_PATCH}),
        ],
        accepts_none=frozenset({"patch"}),
    ),
    Method(
        name="conversations.update_many_by_id",
        call={"patches": {"a": CONVERSATION_PATCH}},
        cost="row",
        round_trips=[(1, valid(patches={"a": {"name": "n"}})), (4, valid())],
        writes=True,
        cancelled=[
            Write({"patches": {"a": {"name": "x"}, "b": {"user_id": "v"}}}),
            Write({"patches": {"a": {"merge_metadata": {"x": 1}}, "b": {"user_id": "v"}}}),
        ],
    ),
    Method(
        name="conversations.put_message",
        call={"id": "a", "message": MESSAGE, "user_id": "u"},
        cost="row",
        writes=True,
        cancelled=[Write(), Write({"message": MESSAGE | {"id": "m1"}})],
    ),
    Method(
        name="conversations.set_feedback",
        call={"id": "a", "message": "m1", "thumb": 1, "user_id": "u"},
        cost="row",
        writes=True,
        cancelled=[Write({"message": 2, "thumb": -1})],
    ),
    Method(
        name="conversations.update_message",
        call={"id": "a", "message": "m1", "patch": MESSAGE_PATCH, "user_id": "u"},
        cost="row",
        writes=True,
        cancelled=[Write({"message": 1})],
    ),
    Method(
        name="conversations.delete_message",
        call={"id": "a", "message": "m1", "user_id": "u"},
        cost="row",
        writes=True,
        cancelled=[Write({"message": 2})],
    ),
    Method(
        name="conversations.pop_message",
        call={"id": "a", "user_id": "u"},
        cost="row",
        writes=True,
        cancelled=[Write(is_repeatable=False)],
    ),
    Method(
        name="conversations.clear_messages",
        call={"id": "a", "user_id": "u", "after_seq": 1, "before_seq": 4},
        cost="row",
        writes=True,
    ),
    Method(
        name="conversations.delete_by_id",
        call={"id": "a", "user_id": "u"},
        cost="row",
        writes=True,
    ),
    Method(
        name="conversations.delete_by_ids",
        call={"ids": ["a"]},
        cost="row",
        writes=True,
        cancelled=[Write({"ids": ["a", "c"]})],
    ),
    Method(
        name="conversations.delete_by_dialog_ids",
        call={"dialog_ids": ["d"]},
        cost="batches",
        round_trips=[(1, valid()), (2, counting.delete_two_batches)],
        writes=True,
        cancelled=[Write({"dialog_ids": ["d", "e"]})],
        has_batches=True,
    ),
    Method(
        name="conversations.erase_user",
        call={"user_id": "u", "on_batch": None},
        cost="batches",
        round_trips=[(9, valid()), (4, valid(user_id="absent"))],
        writes=True,
        isolation=[VALID, with_(user_id="e")],  # this user is the exp_user_id
        has_batches=True,
    ),
    Method(
        name="conversations.delete_tenant",
        call={"on_batch": None},
        cost="batches",
        round_trips=[(33, valid()), (13, repeated())],
        writes=True,
        has_batches=True,
    ),
    Method(
        name="conversations.purge",
        call={
            "older_than": timedelta(days=1),
            "dialog_id": "d",
            "user_id": "u",
            "by": "created_at",
            "dry_run": False,
            "tz": "UTC",
            "on_batch": None,
        },
        cost="batches",
        round_trips=[
            (4, valid()),
            (3, valid(dry_run=True)),
            (3, valid(older_than="2026-02-01")),
            (1, valid(older_than="2020-01-01")),
        ],
        writes=True,
        is_retried=True,  # the first statement reads
        isolation=[
            with_(dry_run=True),
            VALID,
            with_(older_than=timedelta(microseconds=1), dialog_id=ANY, user_id=ANY),
        ],
        cancelled=[Write({"dialog_id": ANY, "user_id": ANY})],
        has_batches=True,
    ),
    Method(
        name="conversations.export",
        call={"dialog_id": "d", "user_id": "u", "split": True},
        cost="batches",
        round_trips=[(3, valid()), (1, valid(dialog_id="absent"))],
        isolation=[VALID, only("dialog_id"), only()],
    ),
    Method(
        name="conversations.watch",
        call={"dialog_id": "d", "user_id": "u"},
        cost="page",
        round_trips=[(7, valid()), (2, counting.second_watch)],
        writes=True,
        is_retried=True,
        isolation=[VALID, only("dialog_id"), only()],
    ),
    Method(
        name="conversations.import_",
        call={"records": [RECORD], "on_rejected": None, "update": False},
        cost="batches",
        round_trips=[
            (4, counting.import_("x", "y")),
            (4, counting.import_("x", "y", existing=("x", "y"))),
            (5, counting.import_("x", "y", existing=("x",))),
            (5, counting.import_in_a_transaction_of_the_caller),
        ],
        writes=True,
        isolation=[VALID, VALID],  # the second import compares the record with the stored one
        cancelled=[
            Write(
                {
                    "records": [
                        {"id": id, "dialog_id": "d", "user_id": "u", "messages": TURN["messages"]}
                        for id in ("w", "x", "y", "z")
                    ]
                }
            )
        ],
        has_batches=True,
        error_as_restricted_role="as the owner",
    ),
    Method(
        name="conversations.stats",
        call={
            "from_date": "2026-01-01",
            "to_date": "2026-12-31",
            "source": None,
            "basis": "activity",
            "interval": "day",
            "dialog_id": "d",
            "token_id": "k",
            "tz": "UTC",
            "fill": True,
        },
        cost="page",
        isolation=[
            VALID,
            with_(basis="creation", token_id=ANY, source=ANY),
            with_(token_id="t", source=ANY),
            only("from_date", "to_date"),
        ],
        accepts_none=frozenset({"token_id"}),
    ),
    Method(
        name="conversations.declare_zone",
        call={"tz": "Asia/Kathmandu"},
        cost="tenant",
        round_trips=[(5, valid()), (3, repeated())],
        writes=True,
    ),
    Method(
        name="conversations.recount_usage",
        call={},
        cost="tenant",
        round_trips=[(6, valid()), (4, repeated())],
        writes=True,
    ),
]
