"""Models that are built from rows."""

import pickle
from datetime import UTC, datetime

import pytest

from asyncsvc.database import build_model, build_models
from asyncsvc.errors import DatabaseError
from asyncsvc.models import Model, StoredMessage

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def rows(count):
    return [
        {
            "seq": seq,
            "id": f"m{seq}" if seq % 2 else None,
            "role": "user",
            "content": f"text {seq}",
            "payload": '{"parts": [1, null]}',
            "reference": None if seq % 2 else "[1.5]",
            "thumb": None,
            "created_at": NOW,
            "a column that is no field": 1,
        }
        for seq in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [0, 1, 9, 10, 100])
def test_models_of_many_rows_equal_the_models_of_each_row(count):
    expected = [build_model(StoredMessage, row) for row in rows(count)]
    built = build_models(StoredMessage, rows(count))
    assert built == expected
    for one, other in zip(built, expected, strict=True):
        assert one.model_fields_set == other.model_fields_set
        assert one.model_dump_json() == other.model_dump_json()
        assert pickle.loads(pickle.dumps(one)) == other
        assert one.model_copy(update={"role": "tool"}).role == "tool"
        with pytest.raises(ValueError, match="frozen"):
            one.role = "tool"


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize(
    ("column", "value"),
    [("seq", "one"), ("payload", "not JSON"), ("created_at", NOW.replace(tzinfo=None))],
)
def test_a_value_of_another_type_is_an_error_that_names_the_column(count, column, value):
    damaged = rows(count)
    damaged[-1] |= {column: value}
    with pytest.raises(DatabaseError, match=f"the column {column} ") as caught:
        build_models(StoredMessage, damaged)
    assert caught.value.__cause__ is caught.value.__context__ is None


def test_the_fields_of_a_model_are_its_whole_validation():
    """Models of many rows are built without the validators and private attributes of the model."""
    for model in subclasses(Model):
        decorators = model.__pydantic_decorators__
        assert not decorators.field_validators, model
        assert not decorators.model_validators, model
        assert not model.__private_attributes__, model
        assert not any(field.validation_alias for field in model.model_fields.values()), model
        assert model.model_config["extra"] == "ignore", model


def subclasses(kind):
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)
