"""The entries of `svc.records`."""

from asyncsvc import ANY
from tests.support.registry.counting import valid
from tests.support.registry.method import VALID, Method, Write, only, with_

RECORDS = [
    Method(
        name="records.put",
        call={"kind": "k", "id": "a", "data": {"n": 1}, "user_id": "u"},
        cost="row",
        writes=True,
        isolation=[VALID, with_(user_id=ANY), with_(user_id="other")],
        cancelled=[Write(), Write({"id": "new"})],
    ),
    Method(
        name="records.merge",
        call={"kind": "k", "id": "a", "patch": {"m": {"n": 1}}, "user_id": "u"},
        cost="row",
        round_trips=[(1, valid()), (2, valid(user_id="other"))],
        writes=True,
        isolation=[VALID, with_(user_id=ANY), with_(user_id="other")],
        cancelled=[Write(), Write({"id": "new"})],
    ),
    Method(
        name="records.get",
        call={"kind": "k", "id": "a", "user_id": "u"},
        cost="row",
        isolation=[VALID, only("kind", "id")],
    ),
    Method(
        name="records.get_many",
        call={"kind": "k", "ids": ["a"], "user_id": "u"},
        cost="row",
        isolation=[VALID, only("kind", "ids")],
    ),
    Method(
        name="records.list",
        call={"kind": "k", "user_id": "u", "after": None, "limit": 5},
        cost="page",
        isolation=[VALID, only("kind")],
    ),
    Method(
        name="records.delete",
        call={"kind": "k", "id": "a", "user_id": "u"},
        cost="row",
        writes=True,
        isolation=[VALID, only("kind", "id")],
    ),
]
