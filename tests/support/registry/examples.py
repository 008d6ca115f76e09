"""Example inputs: one for each input model, with a value for each of its fields."""

from datetime import UTC, datetime
from decimal import Decimal

from asyncsvc import UNSET
from asyncsvc.services.credentials import new_secret

MESSAGE = {
    "role": "user",
    "content": "hello",
    "id": "question",
    "created_at": datetime(2026, 1, 2, tzinfo=UTC),
    "reference": {"chunks": ["c"]},
    "payload": {"id": "m", "parts": ["p"]},
}
ANSWER = {"role": "assistant", "content": "world", "id": "answer"}
USAGE = {
    "input_tokens": 5,
    "output_tokens": 2,
    "cached_input_tokens": 1,
    "cache_write_tokens": 1,
    "reasoning_tokens": 1,
    "requests": 1,
    "cost": Decimal("0.25"),
    "model": "m",
}
ADJUSTMENT = {
    "rounds": 1,
    "requests": -1,
    "input_tokens": -5,
    "cached_input_tokens": -1,
    "cache_write_tokens": -1,
    "output_tokens": 2,
    "reasoning_tokens": 1,
    "total_tokens": 4,
    "cost": Decimal("-0.25"),
    "unpriced": -1,
    "model": "m",
}
TURN = {
    "messages": [MESSAGE, MESSAGE | ANSWER],
    "tokens": 0,  # excludes usage
    "usage": [USAGE],
    "duration": 0.5,
    "round": 1,
    "errors": "none",
    "dsl": {"graph": ["node"]},
    "merge_dsl": UNSET,  # excludes dsl
    "merge_metadata": {"label": "l"},
    "token_id": "t",
    "user_id": "v",
}
TURN_WITHOUT_IDS = TURN | {"messages": [each | {"id": None} for each in TURN["messages"]]}
CONVERSATION = {
    "dialog_id": "d",
    "id": "new",
    "user_id": "u",
    "exp_user_id": "e",
    "name": "n",
    "source": "s",
    "dsl": {"graph": ["node"]},
    "version_title": "v",
    "metadata": {"label": "l"},
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
}
NEW_CONVERSATION = {name: value for name, value in CONVERSATION.items() if name != "id"}
MESSAGE_RECORD = MESSAGE | {
    "id": "recorded",
    "seq": 1,
    "thumb": 1,
    "created_at": datetime(2026, 1, 2, tzinfo=UTC),
}
RECORD = CONVERSATION | {
    "id": "record",
    "messages": [MESSAGE_RECORD],
    "errors": "none",
    "round": 1,
    "tokens": 0,  # excludes usage
    "usage": [USAGE],
    "duration": 0.5,
    "last_seq": 1,
    "updated_at": datetime(2026, 1, 3, tzinfo=UTC),
}
CONVERSATION_PATCH = {
    "name": "n",
    "source": "s",
    "version_title": "v",
    "metadata": {"label": "l"},
    "merge_metadata": UNSET,  # excludes metadata
    "dsl": UNSET,
    "merge_dsl": {"graph": ["node"]},
    "errors": "none",
    "user_id": "u",
    "exp_user_id": "e",
    "dialog_id": "d",
}
MESSAGE_PATCH = {
    "content": "c",
    "payload": UNSET,  # excludes merge_payload
    "merge_payload": {"id": "m"},
    "reference": {"chunks": ["c"]},
}
TOKEN_PATCH = {
    "name": "n",
    "scopes": ["read"],
    "dialog_id": "d",
    "source": "s",
    "metadata": {"label": "l"},
    "expires_at": None,
}
TOKEN_RECORD = {
    "secret": new_secret("asv"),
    "kind": "api",
    "name": "n",
    "scopes": ["read"],
    "dialog_id": "d",
    "source": "s",
    "metadata": {"label": "l"},
    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    "expires_at": None,
}
