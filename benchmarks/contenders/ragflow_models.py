"""peewee models of RAGFlow's tables, with the columns and indexes of its `db_models.py`."""

from __future__ import annotations

import json
from typing import Any

import peewee


class JsonText(peewee.TextField):
    """A JSON document in a text column, like RAGFlow's JSONField."""

    def db_value(self, value: object) -> str:
        """Return the stored text."""
        return json.dumps(value)

    def python_value(self, value: str | None) -> Any:  # noqa: ANN401 - any JSON value
        """Return the parsed document; a missing one is an empty object, as in RAGFlow."""
        return {} if not value else json.loads(value)


def on(database: peewee.Database) -> tuple[Any, Any, Any, Any]:
    """Return the models of users, tokens, dialogs and conversations, bound to this database."""

    class Base(peewee.Model):
        create_time = peewee.BigIntegerField(null=True, index=True)
        create_date = peewee.DateTimeField(null=True, index=True)
        update_time = peewee.BigIntegerField(null=True, index=True)
        update_date = peewee.DateTimeField(null=True, index=True)

        class Meta:
            schema = "ragflow"

    class User(Base):
        id = peewee.CharField(max_length=32, primary_key=True)
        access_token = peewee.CharField(max_length=255, null=True, index=True)
        nickname = peewee.CharField(max_length=100)
        email = peewee.CharField(max_length=255, index=True)
        status = peewee.CharField(max_length=1, default="1", index=True)

        class Meta:
            table_name = "user"

    class APIToken(Base):
        tenant_id = peewee.CharField(max_length=32, index=True)
        token = peewee.CharField(max_length=255, index=True)
        dialog_id = peewee.CharField(max_length=32, null=True, index=True)
        source = peewee.CharField(max_length=16, null=True, index=True)
        beta = peewee.CharField(max_length=255, null=True, index=True)

        class Meta:
            table_name = "api_token"
            primary_key = peewee.CompositeKey("tenant_id", "token")

    class Dialog(Base):
        id = peewee.CharField(max_length=32, primary_key=True)
        tenant_id = peewee.CharField(max_length=32, index=True)

        class Meta:
            table_name = "dialog"

    class API4Conversation(Base):
        id = peewee.CharField(max_length=32, primary_key=True)
        name = peewee.CharField(max_length=255, null=True)
        dialog_id = peewee.CharField(max_length=32, index=True)
        user_id = peewee.CharField(max_length=255, index=True)
        exp_user_id = peewee.CharField(max_length=255, null=True, index=True)
        message = JsonText(null=True)
        reference = JsonText(null=True, default=[])
        tokens = peewee.IntegerField(default=0)
        source = peewee.CharField(max_length=16, null=True, index=True)
        dsl = JsonText(null=True, default={})
        duration = peewee.FloatField(default=0, index=True)
        round = peewee.IntegerField(default=0, index=True)
        thumb_up = peewee.IntegerField(default=0, index=True)
        errors = peewee.TextField(null=True)
        version_title = peewee.CharField(max_length=255, null=True)

        class Meta:
            table_name = "api_4_conversation"

    models = (User, APIToken, Dialog, API4Conversation)
    database.bind(models, bind_refs=False, bind_backrefs=False)
    return models
