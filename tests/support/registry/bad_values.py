"""Invalid values for each parameter of the public methods, by the name of the parameter.

A name such as `records.kind` is for the methods of one service, and one such as
`conversations.messages.after` for one method.
"""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


TEXT = ["a\x00b", "\ud800", "x" * 513, 5, b"bytes", ["a"]]
ID = ["", None, *TEXT]
JSON = [
    float("nan"),
    [float("inf")],
    {"a": "\x00"},
    {"\x00": 1},
    ["\udfff"],
    {1: "a"},
    {"a": {1, 2}},
    datetime.now(UTC),
    nested(100),
    nested(100_000),
    10**5000,
    "x" * 2**24,
    ["x" * 1000] * 9000,
]
OBJECT = [[], "a", 5, *({"a": value} for value in JSON)]
DATE = [
    "20000-01-01",
    date(9999, 12, 31),
    "9999-12-31",
    "0001-01-01",
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    "9999-12-31T20:00Z",
    datetime.now(),  # noqa: DTZ005 - naive on purpose
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    "",
    "today",
    "2026-13-01",
    "2026-02-29",
    "2026-11-22T24:01",
    "2026-11-22T10",
    "2026-11-22T10:00.5",
    "2026-W47-1",
    "20261122",
    "２０２６-11-22",
    "2026-11-22T10:00+25:00",
    "2026-11-22\n",
    "'; DROP TABLE",
    5,
    1.5,
    True,
]
INSTANT = [
    "2026-11-22",
    date(2026, 11, 22),
    datetime.now(),  # noqa: DTZ005
    5,
    datetime.min.replace(tzinfo=UTC),
    datetime.max.replace(tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
]
BOOL = [0, 1, "yes", None]
SIZE = [0, -1, 1001, 10**12, 1.0, "1", True]
SCOPES = ["read", [""], [5], ["a\x00"], ["s"] * 1001, None, 5]
CURSOR = ["", "nonsense", "e30", "\x00", "ä", "A" * 1025, "bnVsbA", 5]
CHOICE = ["; drop table", "", "CREATE_TIME", None, 5, "id", "create_time"]
IDS = ["abc", [""], [5], ["a\x00"], ["i"] * 1001, None, {"a"}, iter("a")]

MESSAGE = ["", -1, 2**31, 1.0, True, "a\x00b", "\ud800", "x" * 129, b"m", ["m"], {"role": "user"}]
BOUND = [*MESSAGE, *INSTANT[1:3], *INSTANT[4:]]

MESSAGES = [{"role": "user", "content": "a"}]
USAGE = {"input_tokens": 5, "output_tokens": 2}
WRONG_USAGE = [
    *({"cost": cost} for cost in (0.1, "1", Decimal(-1), Decimal(1001), Decimal("NaN"))),
    *({"model": model} for model in ("", "m" * 201, "a\x00", "\ud800")),
    *({"input_tokens": tokens} for tokens in (-1, 10**12 + 1, 1.0, None)),
    {"cached_input_tokens": 6},
    {"reasoning_tokens": 3},
]
CALLBACK = ["print", 5, []]
LIMIT = [
    -1,
    1.5,
    "1",
    True,
    None,
    Decimal("NaN"),
    Decimal("1E-10"),
    Decimal("Infinity"),
    10**15 + 1,
]

BAD = {
    "actor": ["", "a" * 257, *TEXT],
    "adjustment": [
        *(None, [], {}, "a", {"model": "m"}, {"tokens": 1}, {"rounds": 1.0}, {"rounds": 2**31}),
        *({"cost": cost} for cost in (0.5, "1", Decimal("NaN"), Decimal(-1_000_001))),
    ],
    "after": CURSOR,
    "after_id": ID,
    "before": BOUND,
    "basis": [*CHOICE, "created"],
    "by": [*CHOICE, "updated"],
    "citus": BOOL,
    "conversation_id": ID,
    "budget_id": ID,
    "budgets": BOOL,
    "budgets.raise_limit.by": LIMIT,
    "budgets.set.limit": LIMIT,
    "conversations": ["abc", [{}], [{"dialog_id": ""}], [None], [{"dialog_id": "d"}] * 1001, None],
    "create": [
        *("abc", [], {}, {"dialog_id": ""}, {"dialog_id": "d", "nonsense": 1}),
        *({"dialog_id": "d", "id": "another"}, {"dialog_id": "d", "user_id": "another"}),
    ],
    "created_at": INSTANT,
    "desc": BOOL,
    "data": [None, *OBJECT],
    "dialog_id": ID,
    "dialog_ids": IDS,
    "dsl": JSON,
    "exp_user_id": ID,
    "expected_seq": [-1, 2**31, 1.0, "1", True],
    "expires_at": INSTANT,
    "fill": BOOL,
    "from_date": [*DATE, "2027-01-01"],
    "group_by": [value for value in CHOICE if value is not None] + ["user"],
    "id": ID,
    "idempotency_key": ["", "k" * 256, *TEXT],
    "ids": IDS,
    "include_dsl": BOOL,
    "update": BOOL,
    "split": BOOL,
    "include_messages": BOOL,
    "interval": [*CHOICE, "year"],
    "items_per_page": SIZE,
    "model": ["", "m" * 201, *TEXT],
    "keywords": [None, *TEXT],
    "kind": [*CHOICE, "API"],
    "keep": IDS,
    "last": SIZE,
    "limit": SIZE,
    "older_than": [*DATE, timedelta(0), timedelta(days=-1), None],
    "on_batch": CALLBACK,
    "on_rejected": CALLBACK,
    "records.kind": ID,
    "records.patch": [None, *OBJECT],
    "conversations.messages.after": BOUND,
    "conversations.iter_messages.after": BOUND,
    "conversations.payloads.after": BOUND,
    "conversations.clear_messages.after": BOUND,
    "conversations.payloads.last": [-1, 2**31, 1.0, "1", True],
    "conversations.payloads.limit": [-1, 2**31, 1.0, "1", True],
    "records": ["abc", b"bytes", {"a": 1}, 5, None, [{}], [None], [{"id": "a"}]],
    "dry_run": BOOL,
    "message": [None, {"role": "user", "content": "without an id"}, *MESSAGE],
    "message_id": ID,
    "metadata": OBJECT,
    "name": TEXT,
    "overlap": [timedelta(days=31), timedelta(days=-1), 5, "1d", None],
    "orderby": [*CHOICE, "dsl", "created_at DESC"],
    "connection": [None, 5, "postgresql://localhost/x"],
    "page_number": [0, -1, 10**12, 2**63, 1.0, "1", True, None],
    "new": [
        *(None, "abc", [], {}, {"dialog_id": ""}, {"dialog_id": "d", "nonsense": 1}),
        *({"dialog_id": "d", "id": "another"}, {"dialog_id": "d", "user_id": "another"}),
    ],
    "merge_payload": [None, [], "a", {"a": {1}}, {"a": "x" * 2**23}],
    "patch": [None, [], "a", {"nonsense": 1}],
    "patches": [
        {str(n): {"errors": "x" * 2**20} for n in range(33)},
        None,
        [],
        {"": {}},
        {"a\x00": {}},
        {"a": {"name": 5}},
        {"a": {"dialog_id": ""}},
        *({"a": {"merge_dsl": value}} for value in ([], None, 5, {"a": nested(100)})),
        *({"a": {name: {}, f"merge_{name}": {}}} for name in ("dsl", "metadata")),
    ],
    "position": [None, 5, "", "nonsense", "0", "0/", "0/0\n", "123456789/0"],
    "present": [None, 5, "user_id", ["nonsense"], [5]],
    "reason": ["", *TEXT],
    "scopes": SCOPES,
    "secret": [None, 5, b"bytes", ["asv_"]],
    "source": ["", *TEXT],
    "scope": CHOICE,
    "since": INSTANT,
    "subject": ["", *TEXT, None],
    "tenant_id": ID,
    "thumb": [0, 2, -2, 1.0, True, "1"],
    "to_date": DATE,
    "token_id": ID,
    "top": [0, 1_001, 1.0, "1", True, None],
    "total": [*CHOICE, "all"],
    "record_use": BOOL,
    "metric": CHOICE,
    "window": CHOICE,
    "turn": [
        *(None, [], {}, "a", {"messages": []}, {"messages": "a"}, {"messages": [{}]}),
        *({"messages": MESSAGES, "usage": USAGE | wrong} for wrong in WRONG_USAGE),
        {"messages": MESSAGES, "usage": USAGE, "tokens": 1},
        {"messages": MESSAGES, "usage": [USAGE] * 33},
    ],
    "unused_since": INSTANT,
    "usage": [
        *(None, [], {}, "a", 5, [5], [None], [USAGE] * 33),
        *(USAGE | wrong for wrong in WRONG_USAGE),
    ],
    "tz": [
        *("", "Mars/Olympus", "../../etc/passwd", "UTC; DROP TABLE x", "+05:00", "CET", "EST"),
        *("posix/Europe/Berlin", "right/UTC", "Europe", "europe/berlin", "Europe/", "/"),
        *TEXT,
    ],
    "user_id": [None, *TEXT],
    "values": [None, 5, "user_id", ["user_id"], {"nonsense": "x"}, {"user_id": 5}],
    "version_title": TEXT,
}
