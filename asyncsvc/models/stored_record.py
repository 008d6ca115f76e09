"""The record of an application: data that is not a conversation."""

from __future__ import annotations

from pydantic import Json as JsonText
from pydantic import JsonValue

from asyncsvc.models.base import Model
from asyncsvc.models.columns import Timestamp


class Record(Model):
    """A record as stored."""

    tenant_id: str
    """The tenant that owns the record."""
    kind: str
    """The kind of the record, such as "attachment" or "user"."""
    id: str
    """The id, unique within the kind."""
    user_id: str
    """The owner. Empty for a record without one. It never changes."""
    data: JsonText[dict[str, JsonValue]]
    """The JSON object of the application."""
    created_at: Timestamp
    """The time of the first write."""
    updated_at: Timestamp
    """The time of the last write. It never decreases."""
