"""The model of `RecordService`."""

import copy
from collections import defaultdict
from collections.abc import Iterable

from asyncsvc import ANY, AlreadyExists, NotFound
from tests.models.state import SERVER_TIME, Row, Tenant, matches, merge

RECORD_KINDS = ("k", "l")
"""The kinds of the generated records."""


class RecordModel:
    """The records of all tenants."""

    def __init__(self, tenants: defaultdict[str, Tenant]) -> None:
        self._tenants = tenants

    def put(self, kind, id, data, *, tenant_id, user_id=ANY) -> Row:
        records = self._tenants[tenant_id].records
        owner = "" if user_id is ANY else user_id
        record = records.get((kind, id), {"kind": kind, "id": id, "user_id": owner})
        if not matches(user_id, record["user_id"]):
            raise AlreadyExists("another user owns the record")
        records[kind, id] = record | {"data": copy.deepcopy(data)}
        return stored(records[kind, id])

    def merge(self, kind, id, patch, *, tenant_id, user_id=ANY) -> Row:
        stored = self._tenants[tenant_id].records.get((kind, id), {"data": {}})
        data = merge(stored["data"], patch)
        return self.put(kind, id, data, tenant_id=tenant_id, user_id=user_id)

    def get(self, kind, id, *, tenant_id, user_id=ANY) -> Row:
        records = self.get_many(kind, [id], tenant_id=tenant_id, user_id=user_id)
        if not records:
            raise NotFound("record")
        return records[0]

    def get_many(self, kind, ids: Iterable[str], *, tenant_id, user_id=ANY) -> list[Row]:
        records = [self._tenants[tenant_id].records.get((kind, id)) for id in ids]
        return [stored(each) for each in records if each and matches(user_id, each["user_id"])]

    def list(self, kind, *, tenant_id, user_id=ANY):
        ids = sorted(id for of, id in self._tenants[tenant_id].records if of == kind)
        return self.get_many(kind, ids, tenant_id=tenant_id, user_id=user_id)

    def delete(self, kind, id, *, tenant_id, user_id=ANY) -> int:
        records = self.get_many(kind, [id], tenant_id=tenant_id, user_id=user_id)
        for _ in records:
            del self._tenants[tenant_id].records[kind, id]
        return len(records)


def stored(record: Row) -> Row:
    """Return the fields of `asyncsvc.Record`, except the tenant."""
    return copy.deepcopy(record) | {"created_at": SERVER_TIME, "updated_at": SERVER_TIME}
